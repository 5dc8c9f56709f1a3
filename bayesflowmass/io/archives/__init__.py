"""Galaxies around a cluster from archives: NED, SDSS and VizieR, by name or position (extra ``archives``).

`fetch_cluster` asks an archive through astroquery, politely (`access`), keeps its answers (`cache`), converts them by
the readers of `bayesflowmass.io.formats` or by UCD (`ucd`), and cuts a cylinder around the cluster.
"""

from bayesflowmass.io.archives.access import ArchiveError, Caller
from bayesflowmass.io.archives.cache import AnswerCache, default_cache_folder
from bayesflowmass.io.archives.cluster import ClusterPosition, FetchedCluster, fetch_cluster
from bayesflowmass.io.archives.services import SOURCES, resolve_name

__all__ = [
    "SOURCES",
    "AnswerCache",
    "ArchiveError",
    "Caller",
    "ClusterPosition",
    "FetchedCluster",
    "default_cache_folder",
    "fetch_cluster",
    "resolve_name",
]
