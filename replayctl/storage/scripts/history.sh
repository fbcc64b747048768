# Tells who has released what. Writes nothing. $dags $submit $owner
cd -- "$dags" 2>/dev/null || fail "the DAG folder $dags does not exist or is closed to you" 66
own=$STORE/$owner
echo "clock $(date +%s)"
[ ! -f "$own/current" ] || emit pointer - "$own/current"
for folder in "$own"/r_*/; do
    name=${folder%/}
    [ ! -f "$folder.release.json" ] || emit release "${name##*/}" "$folder.release.json"
done
[ ! -f "$own/audit.log" ] || emit audit - "$own/audit.log"
echo "whole"
