from lab.explore.progress import ProgressBar


def test_a_bar_counts_to_its_end_closes_and_starts_anew_for_another_total(capsys):
    bar = ProgressBar("views")
    bar(1, 4)
    bar(3, 4, 0.25)
    assert (bar.bar.n, bar.bar.total) == (3, 4)
    assert "loss=0.250" in bar.bar.postfix
    bar(4, 4)
    assert bar.bar is None
    bar(2, 10)
    bar(1, 3)  # of something else
    assert (bar.bar.n, bar.bar.total) == (1, 3)
    bar.close()
    bar.close()
    assert "views" in capsys.readouterr().err


def test_a_bar_without_a_total_only_counts():
    bar = ProgressBar("samples")
    bar(5)
    bar(9)
    assert bar.bar.n == 9
    bar.close()
