# Shell functions that bring a bare Debian 12 to where the project builds and runs. Sourced by ./evaluate, ./run-tests and the
# container build; sets `root` to the top of the source tree. Every function does nothing when its work is already done.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build_packages=(meson ninja-build pkg-config gcc g++ libmicrohttpd-dev libjansson-dev libsentencepiece-dev libssl-dev libpcre2-dev libutf8proc-dev zlib1g-dev)
python_packages=(python3 python3-venv ca-certificates)

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# setup_packages NAME...: installs what is missing of the named Debian packages, as root or through sudo.
setup_packages() {
    local missing=() name as_root=()
    for name; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) = installed ]] || missing+=("$name")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null || die "not a Debian system; please install what these packages hold: ${missing[*]}"
    if [[ $(id -u) != 0 ]]; then
        command -v sudo >/dev/null || die "run this as root, or install these packages first: ${missing[*]}"
        as_root=(sudo)
    fi
    echo "installing Debian packages: ${missing[*]}"
    "${as_root[@]}" apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# setup_venv FILE [NAME]: the virtual environment NAME (.venv by default) with what the requirement file names.
setup_venv() {
    local name=${2:-.venv} stamp
    local venv=$root/$name
    stamp=$venv/installed-$(basename "$(dirname "$1")").txt
    cmp -s "$1" "$stamp" && return 0
    echo "installing Python packages into $name"
    [[ -x $venv/bin/pip ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check --use-pep517 -r "$1"
    cp "$1" "$stamp"
}

# setup_transformers: the two versions whose reading of tokenizer files is followed, each in an environment of its own.
setup_transformers() {
    local version
    for version in 4 5; do
        setup_venv "$root/tests/tokenizer/transformers-$version.txt" ".venv-transformers-$version"
    done
}

# setup_logged LOG COMMAND...: its output is shown only when it fails.
setup_logged() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; die "the build failed; the whole output is in $log"; }
}

# setup_configure DIR [MESON OPTION...]: once.
setup_configure() {
    mkdir -p "$1"
    [[ -f $1/build.ninja ]] || setup_logged "$1/setup.log" meson setup "$1" "$root" "${@:2}"
}

# setup_build DIR [MESON OPTION...]: configures once and builds $build_targets, or everything.
setup_build() {
    local dir=$1
    echo "building in ${dir#"$root"/}"
    setup_configure "$@"
    # shellcheck disable=SC2086
    setup_logged "$dir/build.log" ninja -C "$dir" ${build_targets:-}
}
