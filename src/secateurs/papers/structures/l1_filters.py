"""Filters by their own norm: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017."""

from secateurs.core.method import Method

__all__ = ["L1Filters"]


class L1Filters(Method):
    """Remove the filters with the smallest sum of ``|w|``, the same share of every layer, and whatever reads their maps.

    The rows that produce a channel are judged, and only these. Where a residual sum couples several producers their norms are
    added up; the paper goes by the shortcut's.
    """

    name = "l1-filters"
    summary = "channels and neurons whose producing rows have the smallest sum of |w|, in every layer"
    prunes = ("channels", "neurons")
    structures = ("channels", "neurons")
    members = ("out",)
    when = "after training"
    paper = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017"
    defaults = {"criterion": "magnitude", "power": 1.0, "scope": "local"}
