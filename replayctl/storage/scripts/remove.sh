# Removes stored releases. Each is renamed first, so that none is ever there by half.
# $dags $submit $owner $token $audit $file_mode; then the releases' names.
own=$dags/$STORE/$owner
held() {
    case $(cat "$own/.lock" 2>/dev/null) in *"$token"*) ;; *) fail "somebody has taken the lock away" 75 ;; esac
}
held
: >> "$own/audit.log" || fail "cannot write $own/audit.log"
current=$(cat "$own/current" 2>/dev/null || :)
for name in "$@"; do
    held
    [ "$name" != "$current" ] || fail "$name is the published release"
    # The zip goes last: a release without its zip is not whole, a zip without its release is only forgotten.
    for parent in "$own" "$submit/$owner"; do
        [ ! -d "$parent/$name" ] || mv "$parent/$name" "$parent/.tmp.removed.$name.$token"
        # What another user's process has left in there may not be ours to remove; hidden, it is in nobody's way.
        rm -rf "$parent/.tmp.removed.$name.$token" 2>/dev/null || echo "left $parent/.tmp.removed.$name.$token"
    done
    echo "removed $name"
done
printf '%s\n' "$audit" >> "$own/audit.log"
chmod "$file_mode" "$own/audit.log" 2>/dev/null && chmod g+w "$own/audit.log" || :
echo "whole"
