"""p2plearn: courses that travel from learner to learner, with no server in the middle.

The rooms, from the outside in: ``cli`` and ``client`` (a person's words), ``web`` (the local API), ``node``
(puts the parts together), ``dht`` and ``gossip`` (who has what, who says what), ``transfer`` (moving chunks),
``store`` (what is kept here), ``net`` (libp2p), ``course`` (what a course is). Imports run one way, outside in.
"""

__version__ = "0.1.0"
