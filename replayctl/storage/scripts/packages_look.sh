# Reports what is stored, and for every requested package its sha256 as computed now, or the part that was uploaded so far.
# Without a request it names the packages that have a part. Writes nothing but the names of its own leftovers.
# After the common variables: the sha256 of the requested packages.
go_to_packages
heartbeat
for name in p_*; do
    case $name in *[!0-9a-f_p]*) continue ;; esac
    is_folder "$name" || continue
    if ! facts "$name" || ! is_ours; then continue; fi
    enter "$name"
    if stored_file; then
        echo "file $name $size $file"
        ! is_file .package.json || emit package "$name" .package.json
        for sha; do
            case $sha in "${name#p_}"*) echo "sum $name $(digest < "$file")" ;; esac
        done
    fi
    go "$packages" || fail "$packages was moved meanwhile"
done
if [ "$#" -eq 0 ] && enter_parts; then
    for name in part.* work.*; do
        ! is_part "$name" || { name=${name#*.} && echo "partial ${name%%.*}"; }
    done
fi
[ "$#" -eq 0 ] || ! enter_parts || for sha; do
    adopt "$sha"
    ! is_part "part.$sha" || echo "part $sha $size $(head -c "$size" -- "part.$sha" | digest)"
done
stop_heartbeat
echo "whole"
