#!/bin/sh
# Copies the baked kernel cache to where numba may write, then becomes streamproc.
# numba silently ignores a folder it cannot write to, and checks an entry by its source
# file's time and size: times are kept (-p). A cache of another image is replaced.
set -eu

baked="${STREAMPROC_BAKED_CACHE:-}"
cache="${NUMBA_CACHE_DIR:-}"

# Kernels were compiled for AVX2; an older processor would die of an illegal instruction.
if [ "${NUMBA_CPU_NAME:-}" = x86-64-v3 ] && ! grep -qw avx2 /proc/cpuinfo; then
    echo "entrypoint: no AVX2 here; kernels are compiled for this processor" >&2
    unset NUMBA_CPU_NAME NUMBA_CPU_FEATURES
    baked=
fi

if [ -n "$cache" ] && [ -f "$baked/.image" ] && ! cmp -s "$baked/.image" "$cache/.image"; then
    mkdir -p "$cache"
    rm -rf "${cache:?}"/*
    # Not -p for the folder itself: it may be a volume that belongs to somebody else.
    for entry in "$baked"/*; do
        cp -Rp "$entry" "$cache/"
    done
    chmod -R u+w "$cache"/*
    cp "$baked/.image" "$cache/.image"
fi

exec streamproc "$@"
