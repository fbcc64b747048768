# What every script begins with. POSIX sh; answers are lines on stdout, or a line that ends in the size of what follows it.
#
# Others may write to the shared folders, so nothing is done by a path that they could redirect: folders are entered one name at
# a time and checked once we are inside (a working directory cannot be exchanged), what is temporary lies in a folder that only
# we can enter, and names that others could replace are replaced by renames, never written through.
set -eu
umask 077
LC_ALL=C
export LC_ALL
CDPATH=
echo "replayctl-shell 1"
STORE=replayctl_releases
KEPT_BYTES=1048576

# Ends whatever hangs (a FIFO put in our way, a dead mount), also when the client has gone.
(
    # KILL: a TERM that arrives between fork and exec is taken by the shell's own handler, and lost.
    trap 'kill -KILL "$!" 2>/dev/null; exit 0' TERM
    sleep "${limit:-600}" &
    wait "$!"
    kill -KILL 0
) </dev/null >/dev/null 2>&1 &
watchdog=$!
# Shells tell on stderr that a signal has ended a child; that is not a word of ours.
end_watchdog() { { kill "$watchdog" && wait "$watchdog"; } 2>/dev/null || :; }
trap end_watchdog EXIT
trap 'exit 1' HUP INT PIPE TERM

fail() { # MESSAGE [STATUS [HINT]]
    [ -z "${3:-}" ] || printf 'replayctl-hint: %s\n' "$3" >&2
    printf '%s\n' "$1" >&2
    exit "${2:-1}"
}

# KIND NAME FILE: the size is counted on the text that is sent, since the file may be replaced meanwhile.
# The full stop keeps the line ends that the shell would take off.
emit() {
    text=$(head -c "$KEPT_BYTES" -- "$3" 2>/dev/null || :; echo .)
    printf '%s %s %d\n%s\n' "$1" "$2" "${#text}" "$text"
}

is_file() { [ -f "$1" ] && [ ! -h "$1" ]; }
is_folder() { [ -d "$1" ] && [ ! -h "$1" ]; }
is_there() { [ -e "$1" ] || [ -h "$1" ]; }

# What a name itself is, links not followed: $mode, $links, $uid, $size. Fails when nothing is there.
facts() {
    is_there "$1" && seen=$(ls -ldn -- "./$1" 2>/dev/null) || return 1
    set -f
    # shellcheck disable=SC2086  # split into its fields
    set -- $seen
    set +f
    mode=$1 links=$2 uid=$3 size=$5
}

# "a link of bob", for messages.
nature() {
    seen=$(ls -ld -- "./$1" 2>/dev/null) || seen='? ? nobody'
    set -f
    # shellcheck disable=SC2086  # split into its fields
    set -- $seen
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

# NAME [FOLDER]: refuses to go on, and says what is in the way and whose it is.
in_the_way() {
    nature "$1"
    place=${2:-$here}
    [ "$kind" != gone ] || fail "$place/$1 is not there any more" 75
    case $kind in *folder) command='rm -r' ;; *) command='rm' ;; esac
    fail "$place/$1 is $kind that belongs to $owner_name: not touched" 73 \
        "look at it there, then remove it (or ask $owner_name to): $command '$place/$1'"
}

# Whether what `facts` has seen belongs to whom it should: in a personal namespace to us, in the common one to anybody.
is_ours() { [ "$team" = 1 ] || [ "$uid" = "$me" ]; }

# The pointer and the log must be files of ours, or not be there. $pointer: what the first one says.
check_files() {
    pointer=
    if facts current; then
        case $mode in -*) ;; *) in_the_way current ;; esac
        is_ours || in_the_way current
        [ "$size" -gt 100 ] || IFS= read -r pointer < current || :
        # One that is no release of ours points nowhere.
        case $pointer in *[!0-9a-z_]*) pointer= ;; r_*) ;; *) pointer= ;; esac
    fi
    if facts audit.log; then
        case $mode in -*) ;; *) in_the_way audit.log ;; esac
        is_ours || in_the_way audit.log
    fi
}

# NAME must be a folder of ours, or not be there.
check_folder() {
    facts "$1" || return 0
    case $mode in d*) ;; *) in_the_way "$1" ;; esac
    is_ours || in_the_way "$1"
}

# PATH from the settings, whose parents are trusted: goes there.
go() { # PATH
    cd -P -- "$1" 2>/dev/null || return 1
    here=${PWD%/}
}

# NAME: goes into that folder of the present one and nowhere else.
enter() {
    above=$here
    if cd -P -- "./$1" 2>/dev/null && [ "$PWD" = "$above/$1" ]; then
        here=$PWD
        return 0
    fi
    cd -P -- "$above/" && in_the_way "$1"
}

# NAME: the same for a folder that has to be ours.
enter_own() {
    enter "$1"
    facts . || fail "$here cannot be read"
    is_ours || is_squashed || { go "$above/" && in_the_way "$1"; }
}

# Some NFS servers give all files to one user. Then a new file of ours belongs to them as well.
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

# NAME UMASK: makes a folder, unless it is there; $made says whether. Colleagues who come at the same moment can use it at once.
make_folder() {
    made=
    ! is_there "$1" || return 0
    umask "$2"
    mkdir -- "./$1" 2>/dev/null && made=1
    umask 077
    is_there "$1" || { nature .; fail "cannot make the folder $here/$1: $here belongs to $owner_name"; }
}

# NAME MODE: enters a folder that has to be ours, made where it is missing.
own_folder() {
    make_folder "$1" "02$((2 - 2 * team))"
    enter_own "$1"
    if [ -n "$made" ]; then
        chmod "$2" .
    elif [ "$team" = 0 ]; then
        # Closed to others from now on, if an earlier version or somebody else has left it open.
        case $mode in ?????w* | ????????w*) chmod go-w . ;; esac
    fi
}

# Makes a folder that only we can enter, and enters it. Nothing in it can be anybody else's.
private() {
    mkdir "./.tmp.$token" 2>/dev/null || fail "cannot write into $here"
    enter ".tmp.$token"
    facts . || fail "$here cannot be read"
    case $mode in drwx--[-S]---*) ;; *) fail "$here is not closed to others: exchanged while it was made" 73 ;; esac
    [ "$uid" = "$me" ] || fail "$here is not ours: exchanged while it was made" 73
    for entry in * .[!.]*; do
        ! is_there "$entry" || fail "$here is not empty: exchanged while it was made" 73
    done
    # Programs that never take a folder, or a link to one, for the place to move into.
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
    [ "$move" = 'mv -fT' ] || ! [ -d "$2" ] || fail "$2 is a folder or a link to one: not touched" 73
    $move -- "$1" "$2" || fail "cannot move $1 to $2: does it belong to somebody else?" 73
}

# FILE LINE: appends to a file that others could exchange meanwhile, under a name that only we have. Status 1: not now.
append() {
    ! is_there pinned || rm -f pinned
    ln -P -- "$1" pinned 2>/dev/null || ln -- "$1" pinned 2>/dev/null || fail "cannot write $1"
    facts pinned || fail "cannot write $1"
    case $mode in -*) ;; *) fail "$1 is no plain file: not written" 73 ;; esac
    # Another link to a file of ours may be the name of something else that we own; or a colleague appends as we do.
    if [ "$links" != 2 ] && [ "$uid" = "$me" ]; then
        rm -f pinned
        return 1
    fi
    # What a cut left without its line end gets one.
    [ ! -s pinned ] || [ -z "$(tail -c 1 pinned)" ] || echo >> pinned
    printf '%s\n' "$2" >> pinned || fail "cannot write $1"
}

# Puts the line in the file `audit` of the private folder into the namespace's log.
log_audit() {
    if is_there ../audit.log; then
        IFS= read -r line < audit
        append ../audit.log "$line" || fail "${here%/*}/audit.log has other hard links: not written" 73
    else
        chmod "$file_mode" audit
        $link -- audit ../audit.log || fail "cannot write ${here%/*}/audit.log"
        rm -f audit
    fi
}

# Removes what lies about from deploys that were killed. What is another's stays: hidden, it is in nobody's way.
discard() { # NAME…
    for left; do
        facts "$left" || continue
        case $mode in
            d*)
                [ "$uid" = "$me" ] || { rmdir "./$left" 2>/dev/null || :; continue; }
                # Nobody else can come in any more while it is emptied.
                if (enter "$left" && chmod 700 .); then rm -rf -- "./$left" 2>/dev/null || :; fi
                ;;
            *) rm -f -- "./$left" 2>/dev/null || : ;;
        esac
    done
}

# What the lock says, printable and bounded, and a mark by which to know it again: $lock and $mark, empty without a lock.
read_lock() {
    lock='' mark=''
    is_there .lock && seen=$(ls -ldin ./.lock 2>/dev/null) || return 0
    set -f
    # shellcheck disable=SC2086  # split into its fields
    set -- $seen
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
    is_held "${1:-}" || fail "somebody has taken the lock away" 75
}

go_to_namespace() {
    go "$dags" || fail "the DAG folder $dags does not exist or is closed to you" 66
    enter "$STORE"
    enter_own "$owner"
}

me=$(id -u)
