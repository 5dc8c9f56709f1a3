"""Catalogues of galaxy clusters: ragged galaxies on Arrow, files, tables, validation."""

from bayesflowmass.catalog.catalog import ClusterCatalog
from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.catalog.files import CatalogWriter
from bayesflowmass.catalog.metadata import CatalogMetadata

__all__ = ["CatalogError", "CatalogMetadata", "CatalogWriter", "ClusterCatalog"]
