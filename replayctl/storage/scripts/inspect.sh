# Tells what lies in both folders for one namespace. Writes nothing.
# $dags $submit $owner; then the stubs' names that are wanted, `--`, and the releases to compare with their manifests.
cd -- "$dags" 2>/dev/null || fail "the DAG folder $dags does not exist or is closed to you" 66
own=$STORE/$owner
echo "clock $(date +%s)"
[ ! -f "$own/current" ] || emit pointer - "$own/current"
[ ! -f "$own/.lock" ] || emit lock - "$own/.lock"
wanted=' '
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    wanted="$wanted$1 "
    shift
done
[ "$#" -eq 0 ] || shift

mine=$(grep -l "^# replayctl-stub: owner=$owner " ./dag_*.py 2>/dev/null || :)
end='
'
for file in ./dag_*.py; do
    name=${file#./}
    # Other characters are in no name of ours.
    case $name in *[!A-Za-z0-9_.-]*) continue ;; esac
    [ -e "$file" ] || [ -h "$file" ] || continue
    case "$end$mine$end" in
        *"$end$file$end"*) emit stub "$name" "$file" ;;
        *) case $wanted in *" $name "*) emit stub "$name" "$file" ;; *) echo "foreign $name" ;; esac ;;
    esac
done
for folder in "$own"/r_*/; do
    name=${folder%/}
    name=${name##*/}
    [ ! -f "$folder.release.json" ] || echo "release $name"
done
for folder in "$submit/$owner"/r_*/; do
    name=${folder%/}
    name=${name##*/}
    [ ! -f "$folder.manifest" ] || echo "submitted $name"
done
compare() { # KIND NAME FOLDER
    [ -f "$3/.manifest" ] || return 0
    emit "$1_manifest" "$2" "$3/.manifest"
    text=$(cd -- "$3" && find . -type d -name __pycache__ -prune -o -type f ! -path ./.manifest -exec cksum {} + && echo .)
    printf '%s %s %d\n%s\n' "$1_sums" "$2" "${#text}" "$text"
}
if [ -f "$own/current" ]; then
    read -r pointer < "$own/current" || :
    case $pointer in r_*[!0-9a-z_]*) ;; r_*) compare release "$pointer" "$own/$pointer" ;; esac
else
    pointer=
fi
for name in "$@"; do
    [ "$name" = "$pointer" ] || compare release "$name" "$own/$name"
    compare submit "$name" "$submit/$owner/$name"
done
echo "whole"
