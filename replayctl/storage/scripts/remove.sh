# Removes stored releases. They are moved away first, so that none is ever incomplete.
# $dags $submit $owner $team $token $audit $file_mode; then the releases' names.
go_to_namespace
held
own=$here
check_files
for name; do
    [ "$name" != "$pointer" ] || fail "$name is the published release"
    check_folder "$name"
done
discard .tmp.* .lock.*

# NAMES…: from the present folder into a private one, and away with it.
remove() {
    private
    for name; do
        held "$own/.lock"
        check_folder "../$name"
        ! is_there "../$name" || put "../$name" "$name"
    done
    leave_private
    # We may not be allowed to remove files that another user's process left there.
    ! is_there ".tmp.$token" || printf 'left %s\n' "$here/.tmp.$token"
}
# The zip goes last: a release without its zip is incomplete, a zip without its release is only a leftover.
remove "$@"
if [ -d "$submit" ]; then
    (
        go "$submit" || fail "the folder $submit is not accessible to you"
        is_there "$owner" || exit 0
        enter_own "$owner"
        for name; do check_folder "$name"; done
        remove "$@"
    ) || exit "$?"
fi
for name; do echo "removed $name"; done
# Another name, since the first folder may still exist.
token=$token.audit
private
printf '%s\n' "$audit" > audit
log_audit
leave_private
echo "whole"
