"""The version, in one place: the package metadata, the saved files and ``secateurs --version`` read it here."""

__version__ = "0.1.0"
