# Removes stored packages, which are moved away first, so that none is ever incomplete; and old leftovers of uploads.
# After the common variables: $token $audit; then the names of the packages' folders.
go_to_packages
for name; do check_folder "$name"; done
if [ "$#" -gt 0 ]; then
    private
    for name; do
        ! is_there "../$name" || put "../$name" "$name"
        echo "removed $name"
    done
    printf '%s\n' "$audit" > audit
    log_audit
    leave_private
fi
if enter_parts; then
    find . ! -name . -prune -type f -mtime +6 -exec rm -f -- {} \; -exec echo leftover {} \;
fi
echo "whole"
