# The start of every script. POSIX sh; answers are lines on stdout, or a line that ends with the size of the text after it.
# Names of files and users are printed by printf: in some shells, echo takes a backslash in them for the start of an escape.
#
# Others may write to the shared folders, so no path is used that they could redirect: folders are entered one name at a time and
# checked from inside (nobody can replace a working directory), temporary files are in a folder that only we can enter, and names
# that others could replace are replaced by renames, never written through.
set -eu
umask 077
LC_ALL=C
export LC_ALL
CDPATH=
echo "replayctl-shell 1"
STORE=replayctl_releases
KEPT_BYTES=1048576

# Ends a script that hangs (on a FIFO put in its way, on a dead mount), also after the client is gone.
(
    # KILL, because a TERM that arrives between fork and exec is caught by the shell's own handler and lost.
    trap 'kill -KILL "$!" 2>/dev/null; exit 0' TERM
    sleep "${limit:-600}" &
    # Neither the last command nor a failing one: there mksh ends at an interrupted wait without running the trap.
    is_late=1
    wait "$!" || is_late=
    [ -z "$is_late" ] || kill -KILL 0
) </dev/null >/dev/null 2>&1 &
watchdog=$!
# Shells report on stderr that a signal ended a child; that is no message of ours.
end_watchdog() { { kill "$watchdog" && wait "$watchdog"; } 2>/dev/null || :; }
trap end_watchdog EXIT
trap 'exit 1' HUP INT PIPE TERM

fail() { # MESSAGE [STATUS [HINT]]
    [ -z "${3:-}" ] || printf 'replayctl-hint: %s\n' "$3" >&2
    printf '%s\n' "$1" >&2
    exit "${2:-1}"
}

# KIND NAME FILE: the size is that of the text that is sent, since the file may be replaced meanwhile.
# The full stop protects trailing newlines, which the shell would strip.
emit() {
    text=$(head -c "$KEPT_BYTES" -- "$3" 2>/dev/null || :; echo .)
    printf '%s %s %d\n%s\n' "$1" "$2" "${#text}" "$text"
}

is_file() { [ -f "$1" ] && [ ! -h "$1" ]; }
is_folder() { [ -d "$1" ] && [ ! -h "$1" ]; }
is_there() { [ -e "$1" ] || [ -h "$1" ]; }

# Describes a name itself, without following links: $mode, $links, $uid, $size. Fails when it does not exist.
facts() {
    is_there "$1" && listing=$(ls -ldn -- "./$1" 2>/dev/null) || return 1
    set -f
    # shellcheck disable=SC2086  # split into its fields
    set -- $listing
    set +f
    mode=$1 links=$2 uid=$3 size=$5
}

# "a link of bob", for messages.
nature() {
    listing=$(ls -ld -- "./$1" 2>/dev/null) || listing='? ? nobody'
    set -f
    # shellcheck disable=SC2086  # split into its fields
    set -- $listing
    set +f
    case $1 in
        l*) kind='a link' ;;
        d*) kind='a folder' ;;
        -*) if [ "$2" = 1 ]; then kind='a file'; else kind="a file with $2 hard links"; fi ;;
        p*) kind='a FIFO' ;;
        '?') kind='gone' ;;
        *) kind='a special file' ;;
    esac
    owner_name=$3
}

# NAME [FOLDER]: fails with a message that says what is in the way and who owns it.
in_the_way() {
    nature "$1"
    place=${2:-$here}
    [ "$kind" != gone ] || fail "$place/$1 no longer exists" 75
    case $kind in *folder) command='rm -r' ;; *) command='rm' ;; esac
    fail "$place/$1 is $kind that belongs to $owner_name; it was not changed" 73 \
        "check it, then remove it (or ask $owner_name to): $command '$place/$1'"
}

# Whether the owner that `facts` found is allowed: in a personal namespace us, in the common one anyone.
is_ours() { [ "$team" = 1 ] || [ "$uid" = "$me" ]; }

# The pointer and the log must be files of ours, or not exist. $pointer: the release that the pointer names.
check_files() {
    pointer=
    if facts current; then
        case $mode in -*) ;; *) in_the_way current ;; esac
        is_ours || in_the_way current
        [ "$size" -gt 100 ] || IFS= read -r pointer < current || :
        # Anything but a release's name points nowhere.
        case $pointer in *[!0-9a-z_]*) pointer= ;; r_*) ;; *) pointer= ;; esac
    fi
    if facts audit.log; then
        case $mode in -*) ;; *) in_the_way audit.log ;; esac
        is_ours || in_the_way audit.log
    fi
}

# NAME must be a folder of ours, or not exist.
check_folder() {
    facts "$1" || return 0
    case $mode in d*) ;; *) in_the_way "$1" ;; esac
    is_ours || in_the_way "$1"
}

# NAME: whether it is a folder that we may look into; reports one that is closed to us, which others need not be.
may_enter() {
    is_folder "$1" || return 1
    if [ -r "$1" ] && [ -x "$1" ]; then return 0; fi
    nature "$1"
    printf 'closed %s %s\n' "$owner_name" "$here/$1"
    return 1
}

# Enters a PATH from the settings, whose parents are trusted.
go() { # PATH
    cd -P -- "$1" 2>/dev/null || return 1
    here=${PWD%/}
}

# NAME: enters that folder of the present one and nothing else.
enter() {
    above=$here
    if cd -P -- "./$1" 2>/dev/null && [ "$PWD" = "$above/$1" ]; then
        here=$PWD
        return 0
    fi
    cd -P -- "$above/"
    if is_folder "$1" && ! [ -x "$1" ]; then
        nature "$1"
        fail "you may not look into $above/$1, which belongs to $owner_name" 73 "ask $owner_name for access"
    fi
    in_the_way "$1"
}

# NAME: the same for a folder that must be ours.
enter_own() {
    enter "$1"
    facts . || fail "cannot read $here"
    is_ours || is_squashed || { go "$above/" && in_the_way "$1"; }
}

# Some NFS servers assign all files to one user. Then a new file of ours belongs to that user as well.
is_squashed() {
    folder_uid=$uid
    mkdir ./.tmp.$$.whose 2>/dev/null || return 1
    squashed=$(
        cd -P ./.tmp.$$.whose && [ "$PWD" = "$here/.tmp.$$.whose" ] && facts . || exit 0
        case $mode in drwx--[-S]---*) ;; *) exit 0 ;; esac
        : > probe && facts probe && echo "$uid"
        rm -f probe
    )
    rmdir ./.tmp.$$.whose 2>/dev/null || :
    [ "$squashed" = "$folder_uid" ] || return 1
    me=$squashed
}

# NAME UMASK: creates a folder unless it exists; $is_new says whether. Colleagues who come at the same moment can use it at once.
make_folder() {
    is_new=
    ! is_there "$1" || return 0
    umask "$2"
    mkdir -- "./$1" 2>/dev/null && is_new=1
    umask 077
    is_there "$1" || { nature .; fail "cannot create the folder $here/$1: $here belongs to $owner_name"; }
}

# NAME MODE: enters a folder that must be ours, and creates it if it does not exist.
own_folder() {
    make_folder "$1" "02$((2 - 2 * team))"
    enter_own "$1"
    if [ -n "$is_new" ]; then
        chmod "$2" .
    elif [ "$team" = 0 ]; then
        # Closed to others from now on, if an earlier version or someone else left it open.
        case $mode in ?????w* | ????????w*) chmod go-w . ;; esac
    fi
}

# Creates a folder that only we can enter, and enters it. Nothing in it can belong to anyone else.
private() {
    mkdir "./.tmp.$token" 2>/dev/null || fail "cannot write to $here"
    enter ".tmp.$token"
    facts . || fail "cannot read $here"
    case $mode in drwx--[-S]---*) ;; *) fail "$here is open to others: it was replaced while it was created" 73 ;; esac
    [ "$uid" = "$me" ] || fail "$here is not ours: it was replaced while it was created" 73
    for entry in * .[!.]*; do
        ! is_there "$entry" || fail "$here is not empty: it was replaced while it was created" 73
    done
    # Programs that never move into an existing folder, or into the folder that a link names.
    [ -z "${move:-}" ] || return 0
    : > probe
    if mv -fT probe probed 2>/dev/null; then
        move='mv -fT' link='ln -T'
    elif mv -fh probe probed 2>/dev/null; then
        move='mv -fh' link='ln -h'
    else
        move='mv -f' link=ln
    fi
}

# Leaves the private folder and removes it.
leave_private() {
    cd -P .. || exit
    here=${here%/*}
    rm -rf -- "./.tmp.$token" 2>/dev/null || :
}

# NEW STORED: renames a file or folder of the private folder to its place.
put() {
    [ "$move" = 'mv -fT' ] || ! [ -d "$2" ] || fail "$2 is a folder or a link to one; it was not changed" 73
    $move -- "$1" "$2" || fail "cannot move $1 to $2: does it belong to someone else?" 73
}

# FILE LINE: appends to a file that others could replace meanwhile, through a name that only we have. Status 1: try again.
append() {
    ! is_there pinned || rm -f pinned
    ln -P -- "$1" pinned 2>/dev/null || ln -- "$1" pinned 2>/dev/null || fail "cannot write $1"
    facts pinned || fail "cannot write $1"
    case $mode in -*) ;; *) fail "$1 is not a regular file; it was not changed" 73 ;; esac
    # Another link to a file of ours may be the name of something else that we own; or a colleague is appending as we do.
    if [ "$links" != 2 ] && [ "$uid" = "$me" ]; then
        rm -f pinned
        return 1
    fi
    # A line that an interruption left without its end gets one.
    [ ! -s pinned ] || [ -z "$(tail -c 1 pinned)" ] || echo >> pinned
    printf '%s\n' "$2" >> pinned || fail "cannot write $1"
}

# Appends the line in the private folder's file `audit` to the namespace's log.
log_audit() {
    if is_there ../audit.log; then
        IFS= read -r line < audit
        append ../audit.log "$line" || fail "${here%/*}/audit.log has other hard links; it was not changed" 73
    else
        chmod "$file_mode" audit
        $link -- audit ../audit.log || fail "cannot write ${here%/*}/audit.log"
        rm -f audit
    fi
}

# Removes leftovers of deploys that were killed. Those of other users stay: they are hidden and harm nothing.
discard() { # NAME…
    for leftover; do
        facts "$leftover" || continue
        case $mode in
            d*)
                [ "$uid" = "$me" ] || { rmdir "./$leftover" 2>/dev/null || :; continue; }
                # Nobody else can enter it while it is emptied.
                if (enter "$leftover" && chmod 700 .); then rm -rf -- "./$leftover" 2>/dev/null || :; fi
                ;;
            *) rm -f -- "./$leftover" 2>/dev/null || : ;;
        esac
    done
}

# The lock's text, printable and bounded, and a mark that identifies it: $lock and $mark, both empty without a lock.
read_lock() {
    lock='' mark=''
    is_there .lock && listing=$(ls -ldin ./.lock 2>/dev/null) || return 0
    set -f
    # shellcheck disable=SC2086  # split into its fields
    set -- $listing
    set +f
    mark="$1 $2"
    case $2 in -*) lock=$(head -c 4096 .lock 2>/dev/null | tr -cd '\040-\176') mark="$1 $(head -c 4096 .lock 2>/dev/null | cksum)" ;; esac
}

is_held() { # [FILE]
    line=
    ! is_file "${1:-.lock}" || IFS= read -r line < "${1:-.lock}" || :
    case $line in *"$token"*) ;; *) return 1 ;; esac
}

held() { # [FILE]
    is_held "${1:-}" || fail "the lock was broken by someone else" 75
}

go_to_namespace() {
    go "$dags" || fail "the DAG folder $dags does not exist or is not accessible to you" 66
    enter "$STORE"
    enter_own "$owner"
}

me=$(id -u)
