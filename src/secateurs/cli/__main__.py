"""``python -m secateurs.cli``."""

from secateurs.cli import main

if __name__ == "__main__":
    main()
