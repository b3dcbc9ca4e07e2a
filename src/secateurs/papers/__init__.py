"""Published methods: one paper, one file. A method composes the choices of ``secateurs.core`` and adds what it alone has."""
