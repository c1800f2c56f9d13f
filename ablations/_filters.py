"""What the declarations of the loss-filter studies share: the rows and the columns of their tables (section 3)."""

from lab.study.ablation import Column, Row

_WIDTHS = {"gaussian_05": 0.5, "gaussian_15": 1.5, "gaussian_2": 2.0, "gaussian_3": 3.0}


def filter_rows(*, fitted_by: str, without: str) -> tuple[Row, ...]:
    """A row for every loss filter, the paper's first, with its controls.

    Args:
        fitted_by: what a filter that is fitted to each `source` by itself is fitted to, in the table's words.
        without: what `ifd` leaves out, in the table's words.
    """
    return (
        Row(key="none", label="Baseline: no filter", changes={}),
        Row(key="gaussian_1", label="Gaussian, k = 1 (the paper's)", changes={"loss_filter": "gaussian"}),
        Row(key="random", label="Control: as many at random as k = 1", changes={"loss_filter": "random"}),
        *(
            Row(key=key, label=f"Gaussian, k = {k:g}", changes={"loss_filter": "gaussian", "k": k})
            for key, k in _WIDTHS.items()
        ),
        Row(
            key="gaussian_by_source",
            label=f"Gaussian, k = 1, fitted by {fitted_by}",
            changes={"loss_filter": "gaussian", "fitted_by": "source"},
        ),
        Row(key="gaussian_low", label="Gaussian, low losses alone", changes={"loss_filter": "gaussian_low"}),
        Row(key="gaussian_high", label="Gaussian, high losses alone", changes={"loss_filter": "gaussian_high"}),
        Row(key="log_gaussian", label="Gaussian of log losses", changes={"loss_filter": "log_gaussian"}),
        Row(key="median_mad", label="Median and its deviation", changes={"loss_filter": "median_mad"}),
        Row(key="ifd", label=f"IFD: with over without {without}", changes={"loss_filter": "ifd"}),
        Row(key="oracle", label="Control: the planted faults removed", changes={"loss_filter": "oracle"}),
    )


FILTER_COLUMNS = (
    Column(metric="test_accuracy", label="test accuracy", unit="%", better="higher", scale=100, interval="error_rate"),
    Column(metric="test_chance", label="by guessing", unit="%", better="higher", scale=100),
    Column(metric="test_loss", label="test loss", unit="nats a token", better="lower"),
    Column(metric="removal_precision", label="faulty of the removed", unit="%", better="higher", scale=100),
    Column(metric="removal_recall", label="removed of the faulty", unit="%", better="higher", scale=100),
    Column(metric="share_removed", label="removed", unit="%", better="lower", scale=100),
    Column(metric="share_faulty_left", label="faulty of the kept", unit="%", better="lower", scale=100),
    Column(metric="lm_tokens", label="LM tokens in training", unit="M", better="lower", scale=1e-6),
    Column(metric="training_seconds", label="training", unit="s", better="lower"),
    Column(metric="peak_memory_bytes", label="peak memory", unit="GB", better="lower", scale=1e-9),
)
