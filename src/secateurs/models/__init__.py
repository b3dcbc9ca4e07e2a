"""Reading a module tree: which parameters are prunable, which are not, and why."""

from secateurs.models.blocks import BlockList, describe_tree, find_blocks
from secateurs.models.choose import EXEMPTIONS, matching, select
from secateurs.models.kinds import KINDS, Role, declare, roles
from secateurs.models.matrices import broadcast, from_matrices, matrices, parts
from secateurs.models.rows import inspect_rows
from secateurs.models.storage import check, check_storage
from secateurs.models.tree import Left, Site, Survey, Weight, survey
from secateurs.models.wrappers import unwrap

__all__ = [
    "EXEMPTIONS",
    "KINDS",
    "BlockList",
    "Left",
    "Role",
    "Site",
    "Survey",
    "Weight",
    "broadcast",
    "check",
    "check_storage",
    "declare",
    "describe_tree",
    "find_blocks",
    "from_matrices",
    "inspect_rows",
    "matching",
    "matrices",
    "parts",
    "roles",
    "select",
    "survey",
    "unwrap",
]
