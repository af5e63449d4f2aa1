"""The composition root: the only place where the parts of Corral meet.

corral.py    everything, put together from one configuration
catalog.py   models as people manage them: operations, revisions, search, in step with what is in memory
"""

from corral.app.corral import Corral, Definition

__all__ = ["Corral", "Definition"]
