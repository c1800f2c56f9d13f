import base64
import json

from lab.study.execution import figures, notebook_page, write_readable

PNG = b"\x89PNG\r\n\x1a\nof a test"


def notebook(*outputs, source="x < 1\ny"):
    code = {"cell_type": "code", "source": source.splitlines(keepends=True), "outputs": list(outputs)}
    return {"cells": [{"cell_type": "markdown", "source": "# A question\n\n| a |\n|---|\n| b |"}, code]}


def shown(**data):
    return {"output_type": "display_data", "data": {name.replace("_", "/"): value for name, value in data.items()}}


PICTURE = shown(image_png=base64.b64encode(PNG).decode() + "\n", text_plain="<Figure>")


def test_text_and_code_say_what_they_say():
    page = notebook_page(notebook())
    assert "<h1>A question</h1>" in page
    assert "<td>b</td>" in page
    assert "<code>x &lt; 1\ny\n</code>" in page


def test_an_output_is_shown_in_its_richest_form():
    table = shown(text_html=["<table>", "</table>"], text_plain="a table")
    stream = {"output_type": "stream", "name": "stdout", "text": ["1 < 2\n"]}
    page = notebook_page(notebook(stream, table, PICTURE, shown(text_plain="0.5"), shown(application_x="?")))
    assert "1 &lt; 2" in page
    assert "<table></table>" in page
    assert "a table" not in page
    assert f"base64,{base64.b64encode(PNG).decode()}'" in page
    assert "<Figure>" not in page
    assert ">0.5\n</code>" in page


def test_a_traceback_is_without_a_terminals_colours():
    error = {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["\x1b[0;31mE\x1b[0m: <e>"]}
    assert ">E: &lt;e&gt;\n</code>" in notebook_page(notebook(error))


def test_figures_are_kept_as_pictures_beside_the_page(tmp_path):
    content = notebook(PICTURE, PICTURE)
    assert list(figures(content)) == [PNG, PNG]
    (tmp_path / "made.ipynb").write_text(json.dumps(content))
    write_readable(tmp_path / "made.ipynb", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"made.ipynb", "notebook.html", "figure-1.png", "figure-2.png"}
    assert (tmp_path / "figure-2.png").read_bytes() == PNG


def test_a_notebook_that_is_half_written_leaves_nothing(tmp_path):
    (tmp_path / "half.ipynb").write_text('{"cells": [')
    write_readable(tmp_path / "half.ipynb", tmp_path)
    write_readable(tmp_path / "none.ipynb", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["half.ipynb"]
