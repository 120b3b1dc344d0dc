"""What scores are called: the metrics, and the rules of the data sets' published numbers."""

from typing import Literal

#: By whose rules a data set's published numbers are computed (`eval.metrics.metric`).
Rules = Literal["grefcoco", "refzom", "refcoco"]
#: The metrics that are shown, in this order.
MetricName = Literal["gIoU", "cIoU", "N_acc", "T_acc"]
