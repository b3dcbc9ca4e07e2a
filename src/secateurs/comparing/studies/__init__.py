"""Studies: questions put to the premises of pruning, answered by many retrainings."""
