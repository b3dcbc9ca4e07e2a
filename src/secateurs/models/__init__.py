"""Reading a module tree: which parameters are prunable, which are not, and why."""

from secateurs.models.choose import EXEMPTIONS, matching, select
from secateurs.models.kinds import KINDS, Role, declare, roles
from secateurs.models.rows import inspect_rows
from secateurs.models.storage import check, check_storage
from secateurs.models.tree import Left, Site, Survey, Weight, survey
from secateurs.models.wrappers import unwrap

__all__ = [
    "EXEMPTIONS",
    "KINDS",
    "Left",
    "Role",
    "Site",
    "Survey",
    "Weight",
    "check",
    "check_storage",
    "declare",
    "inspect_rows",
    "matching",
    "roles",
    "select",
    "survey",
    "unwrap",
]
