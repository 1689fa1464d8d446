#!/bin/sh
# Copies the baked kernel cache to where numba may write, then becomes streamproc.
# numba checks a cache entry by the source file's time and size, so times are kept (-p).
set -eu
if [ -d "${STREAMPROC_BAKED_CACHE:-}" ] && [ ! -e "${NUMBA_CACHE_DIR}/.copied" ]; then
    mkdir -p "${NUMBA_CACHE_DIR}"
    cp -Rp "${STREAMPROC_BAKED_CACHE}/." "${NUMBA_CACHE_DIR}/"
    chmod -R u+w "${NUMBA_CACHE_DIR}"
    : > "${NUMBA_CACHE_DIR}/.copied"
fi
exec streamproc "$@"
