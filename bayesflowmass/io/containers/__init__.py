"""Tables that are not text: FITS, VOTable, parquet. Each is read from bytes in memory: nothing else is opened."""
