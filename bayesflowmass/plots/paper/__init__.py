"""The figures of Kodi Ramanah et al. (2020), one function each."""
