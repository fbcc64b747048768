# What every script begins with. POSIX sh; answers are lines on stdout, or a line that ends in the size of what follows it.
set -eu
umask 002
LC_ALL=C
export LC_ALL
echo "replayctl-shell 1"
STORE=replayctl_releases

fail() {
    printf '%s\n' "$1" >&2
    exit "${2:-1}"
}

# KIND NAME FILE: the size is counted on the text that is sent, since the file may be replaced meanwhile.
# The full stop keeps the line ends that the shell would take off.
emit() {
    text=$(cat -- "$3" 2>/dev/null || :; echo .)
    printf '%s %s %d\n%s\n' "$1" "$2" "${#text}" "$text"
}

# Makes a folder of ours with the wished rights, unless it is there.
folder() {
    [ -d "$1" ] || {
        mkdir -- "$1" 2>/dev/null || [ -d "$1" ] || fail "cannot make the folder $1"
        chmod "$dir_mode" "$1"
    }
}
