"""Large-sparse against small-dense on the three families of the gradual-pruning paper (Zhu and Gupta 2017)."""
