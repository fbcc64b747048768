# Publishes: unpacks what comes on stdin beside the store, checks it, and moves it into place. The rename of the pointer is the publish.
# $dags $submit $owner $token $release (empty: none is published any more) $upload (1: with its files) $sum (of the
# manifest of what comes) $dir_mode $file_mode; then the names of the stubs to remove.
cd -- "$dags" || fail "the DAG folder $dags does not exist or is closed to you" 66
own=$dags/$STORE/$owner
files=$submit/$owner
held() {
    case $(cat "$own/.lock" 2>/dev/null) in *"$token"*) ;; *) fail "somebody has taken the lock away" 75 ;; esac
}
held
# Before anything moves: what cannot be noted down is not done.
: >> "$own/audit.log" || fail "cannot write $own/audit.log"
tmp=$own/.tmp.$token
# Nobody else works here while we hold the lock: what lies about was left by a deploy that was killed.
# Bytecode that another user's process has left in there may not be ours to remove; it is in nobody's way.
rm -rf "$own"/.tmp.* "$own"/.lock.* 2>/dev/null || :
mkdir "$tmp"
cd "$tmp" || exit
echo "phase upload"
tar -xmof - || fail "what was sent did not arrive whole"
[ "$(cksum < manifest)" = "$sum" ] || fail "what was sent did not arrive whole"
find . -type f ! -path ./manifest -exec cksum {} + | sort > "$own/.tmp.$token.sums"
cmp -s manifest "$own/.tmp.$token.sums" || fail "what was written differs from what was sent: is the disk full?"
rm -f "$own/.tmp.$token.sums"
find . -type d -exec chmod "$dir_mode" {} +
find . -type f -exec chmod "$file_mode" {} +

# Makes a stored folder equal to the one that came, a file at a time, so that readers find each one all the time.
repair() { # CAME STORED
    (cd "$2" && find . -type d -name __pycache__ -prune -o -type f -print) | while IFS= read -r name; do
        [ -f "$1/$name" ] || rm -f "$2/$name"
    done
    (cd "$1" && find . -type f) | while IFS= read -r name; do
        cmp -s "$1/$name" "$2/$name" || {
            mkdir -p "$(dirname -- "$2/$name")"
            mv -f "$1/$name" "$2/$name"
        }
    done
}

if [ "$upload" = 1 ]; then
    # Spark's files first, since the DAGs name them.
    echo "phase zip"
    folder "$submit"
    folder "$files"
    rm -rf "$files"/.tmp.* 2>/dev/null || :
    # Copied and not moved: the two folders may lie on different file systems.
    cp -R submit "$files/.tmp.$token"
    find "$files/.tmp.$token" -type d -exec chmod "$dir_mode" {} +
    find "$files/.tmp.$token" -type f -exec chmod "$file_mode" {} +
    if [ -d "$files/$release" ]; then
        repair "$files/.tmp.$token" "$files/$release"
        rm -rf "$files/.tmp.$token"
    else
        mv "$files/.tmp.$token" "$files/$release"
    fi
    echo "phase store"
    if [ -d "$own/$release" ]; then repair release "$own/$release"; else mv release "$own/$release"; fi
fi
echo "phase publish"
if [ -n "$release" ]; then
    [ -f "$own/$release/.release.json" ] || fail "release $release is not stored whole"
fi
for stub in stubs/*.py; do
    [ -f "$stub" ] || continue
    there=$dags/${stub#stubs/}
    # Looked at once more: a colleague may have got this name since it was planned.
    if [ -e "$there" ] && ! grep -q "^# replayctl-stub: owner=$owner " "$there" 2>/dev/null; then
        fail "$there is not yours"
    fi
    mv -f "$stub" "$there"
done
held
[ -z "$release" ] || mv -f current "$own/current"
echo "published"
for name in "$@"; do rm -f "$dags/$name"; done
[ -n "$release" ] || rm -f "$own/current"
cat audit >> "$own/audit.log"
chmod "$file_mode" "$own/audit.log" 2>/dev/null && chmod g+w "$own/audit.log" || :
cd /
rm -rf "$tmp"
echo "whole"
