# Publishes: unpacks stdin into a private folder beside the releases, checks the files, and renames them into place.
# The rename of the pointer is the publish.
# $dags $submit $owner $team $suffix $token $release (empty: withdraw) $upload (1: with its files) $sum (of the
# manifest on stdin) $dir_mode $file_mode; then the names of the stubs to remove.
go_to_namespace
held
own=$here top=$dags
# Nobody else works here while we hold the lock: leftovers are of deploys that were killed.
discard .tmp.* .lock.*
check_files
[ -z "$release" ] || check_folder "$release"
private

echo "phase upload"
# The archive has the modes of the files and folders.
tar -xmopf - || fail "the upload was truncated"
[ "$(cksum < manifest)" = "$sum" ] || fail "the upload was truncated"
find . -type f ! -path ./manifest ! -path ./sums ! -path "./probe*" -exec cksum {} + | sort > sums
cmp -s manifest sums || fail "the files written differ from those sent: is the disk full?"

# FOLDER: the checksums of its files, in the form of its manifest.
sums_of() {
    (cd -P -- "$1" && find . -type d -name __pycache__ -prune -o -type f ! -path ./.manifest -exec cksum {} + | sort)
}

# NEW STORED: makes a stored folder equal to the new one. Its files are replaced one at a time, so that readers find all of
# them at any moment; a folder with anything but files, or that others could redirect meanwhile, is replaced as a whole.
store() {
    if ! is_there "$2"; then
        put "$1" "$2"
        return
    fi
    open_to_others=$([ "$team" = 1 ] || find "$2" -type d -name __pycache__ -prune -o -type d -perm -020 -print -o -type d ! -user "$me" -print)
    if [ -n "$open_to_others$(find "$2" ! -type d ! -type f)" ]; then
        put "$2" replaced
        put "$1" "$2"
    else
        cp "$1/.manifest" expected
        (cd -P -- "$2" && find . -type d -name __pycache__ -prune -o -type f -print) | while IFS= read -r name; do
            [ -f "$1/$name" ] || rm -f -- "$2/$name"
        done || return 1
        (cd -P -- "$1" && find . -type f) | while IFS= read -r name; do
            cmp -s -- "$1/$name" "$2/$name" || {
                [ -d "$2/${name%/*}" ] || (umask "02$((2 - 2 * team))"; mkdir -p -- "$2/${name%/*}")
                put "$1/$name" "$2/$name"
            }
        done || return 1
        sums_of "$2" | cmp -s - expected || fail "${2#../} differs from what was sent: did someone change it meanwhile?"
    fi
}

if [ "$upload" = 1 ]; then
    # Spark's files first, since the DAGs name them.
    echo "phase zip"
    # Piped and not moved, since the two folders may be on different file systems.
    tar -cf - submit | (
        [ -d "$submit" ] || mkdir -m "$dir_mode" -- "$submit" 2>/dev/null || [ -d "$submit" ] || fail "cannot create the folder $submit"
        go "$submit" || fail "the folder $submit is not accessible to you"
        own_folder "$owner" "$dir_mode"
        check_folder "$release"
        discard .tmp.*
        private
        tar -xmopf - || fail "cannot write to $here: is the disk full?"
        sums_of submit | cmp -s - submit/.manifest || fail "the files written differ from those sent: is the disk full?"
        store submit "../$release" || exit "$?"
        # shellcheck disable=SC3013  # POSIX since 2024, and in every sh that we know
        [ .. -ef "$submit/$owner" ] || fail "$submit/$owner was replaced meanwhile"
        leave_private
    ) || exit "$?"
    echo "phase store"
    store release "../$release"
fi
echo "phase publish"
if [ -n "$release" ]; then
    { is_folder "../$release" && is_file "../$release/.release.json"; } || fail "the stored release $release is incomplete"
fi

# NAME in the DAG folder: whether it is ours by its name, header and owner.
is_our_stub() { # NAME FILE
    is_file "$2" || return 1
    facts "$2" && is_ours || return 1
    module=${1%"$suffix".py}
    head -c "$KEPT_BYTES" -- "$2" | grep -q "^# replayctl-stub: owner=$owner module=$module text="
}
for stub in stubs/*.py; do
    is_there "$stub" || continue
    name=${stub#stubs/}
    # Checked again, since a colleague may have taken this name since it was planned.
    ! is_there "$top/$name" || (go "$top" && is_our_stub "$name" "$name") || (go "$top" && in_the_way "$name")
    put "$stub" "$top/$name"
done
held ../.lock
# The line comes before the pointer: after a kill here, the line shows the intent, and the pointer that it was not carried out.
log_audit
[ -z "$release" ] || put current ../current
echo "published"
for name; do
    is_there "$top/$name" || continue
    (go "$top" && is_our_stub "$name" "$name") || (go "$top" && in_the_way "$name")
    # Moved to where nobody can replace it, and checked again.
    mv -f -- "$top/$name" removed 2>/dev/null || fail "cannot remove $top/$name: does it belong to someone else?" 73
    is_our_stub "$name" removed || {
        $link -- removed "$top/$name" 2>/dev/null || $move -- removed "$top/$name" || :
        fail "$top/$name is no longer yours; it was not removed" 73
    }
    rm -f removed
done
[ -n "$release" ] || rm -f ../current

# The result as a reader sees it, by the path that readers use.
# shellcheck disable=SC3013  # POSIX since 2024, and in every sh that we know
[ .. -ef "$top/$STORE/$owner" ] || fail "$top/$STORE/$owner was replaced meanwhile; nothing is published there" 73
published=
! is_file "$top/$STORE/$owner/current" || IFS= read -r published < "$top/$STORE/$owner/current" || :
[ "$published" = "$release" ] || fail "$top/$STORE/$owner/current is '$published' instead of '$release'; it was not published"
if [ -d stubs ]; then
    grep ' \./stubs/' manifest | while read -r sum size name; do
        [ "$(head -c "$KEPT_BYTES" -- "$top/${name#./stubs/}" | cksum)" = "$sum $size" ] ||
            fail "$top/${name#./stubs/} differs from what was written: did someone change it meanwhile?"
    done || exit "$?"
fi
leave_private
echo "whole"
