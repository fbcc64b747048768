# Reports the deployment.json of every stored release of the namespace, or with $everyone of every namespace, and the published
# ones. Writes nothing. $dags $owner $everyone
report() { # NAMESPACE
    enter "$1"
    if is_file current && facts current && [ "$size" -le 100 ] && IFS= read -r published < current; then
        case $published in *[!0-9a-z_]*) ;; r_*) echo "published $1/$published" ;; esac
    fi
    for release in r_*; do
        case $release in *[!0-9a-z_]*) continue ;; esac
        ! is_folder "$release" || ! is_file "$release/deployment.json" || emit deployment "$1/$release" "$release/deployment.json"
    done
}
# shellcheck disable=SC2016  # a command for the reader, not for the shell
go "$dags" || fail "the DAG folder $dags does not exist or is not accessible to you" 66 \
    'run `replayctl settings show` to check folders.dags; --include-used removes builds without looking at releases'
if is_there "$STORE" && enter "$STORE"; then
    for name in *; do
        case $name in *[!A-Za-z0-9._-]*) continue ;; esac
        is_folder "$name" || continue
        [ "$everyone" = 1 ] || [ "$name" = "$owner" ] || continue
        (report "$name") 2>/dev/null || echo "unread $name"
    done
fi
echo "whole"
