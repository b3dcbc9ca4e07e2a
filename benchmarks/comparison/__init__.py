"""The results page's sections on the fair comparison and the oracle studies, from their committed rows."""
