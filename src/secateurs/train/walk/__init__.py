"""The block-by-block walk that every post-training method with calibration data stands on."""

from secateurs.train.walk.assemble import assemble
from secateurs.train.walk.collect import Inputs
from secateurs.train.walk.parallel import Ranks
from secateurs.train.walk.route import Route, Stop, find_route
from secateurs.train.walk.shards import Shards, Streamed, open_folder, open_hollow
from secateurs.train.walk.walking import Block, Runs, Source, Walked, walk

__all__ = [
    "Block", "Inputs", "Ranks", "Route", "Runs", "Shards", "Source", "Stop", "Streamed", "Walked",
    "assemble", "find_route", "open_folder", "open_hollow", "walk",
]  # fmt: skip
