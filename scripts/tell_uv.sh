# Sourced by the scripts beside it.

# What pip was told of a setting, on this machine: lists come back with spaces between the items.
pip_setting() {
    eval "value=\${PIP_$(printf '%s' "$1" | tr 'a-z-' 'A-Z_'):-}"
    if [ -n "$value" ]; then printf '%s' "$value"; return; fi
    for section in install global; do
        value=$(printf '%s\n' "$pip_config" | sed -n "s/^$section\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g; s/^ *//')
        if [ -n "$value" ]; then printf '%s' "$value"; return; fi
    done
}

# uv does not read pip's configuration. Where the machine says there how packages are reached, hand it on, by the
# environment because an address may hold a password; what uv itself was told wins.
tell_uv() {
    pip_config=$("$1" -m pip config list 2> /dev/null) || pip_config=
    index=$(pip_setting index-url)
    more=$(pip_setting extra-index-url)
    links=$(pip_setting find-links)
    hosts=$(pip_setting trusted-host)
    cert=$(pip_setting cert)
    if [ -n "$index" ] && [ -z "${UV_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
    if [ -n "$more" ] && [ -z "${UV_EXTRA_INDEX_URL:-}" ]; then export UV_INDEX="${UV_INDEX:-$more}"; fi
    if [ -n "$links" ]; then export UV_FIND_LINKS="${UV_FIND_LINKS:-$(printf '%s' "$links" | tr -s ' ' ',')}"; fi
    if [ -n "$hosts" ]; then export UV_INSECURE_HOST="${UV_INSECURE_HOST:-$hosts}"; fi
    if [ -n "$cert" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"; fi
    # As pip does: the best version of all indexes. The hashes of the lock say which file that may be.
    export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
}
