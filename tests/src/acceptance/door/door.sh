# Runs what comes through the port, a line each (`ID SCRIPT`, the script in base64), and answers `ID STATUS SAID`.
port=/dev/virtio-ports/tidepool.door
while :; do
  if [ -e "$port" ] && exec 3<>"$port"; then
    while read -r id script <&3; do
      script=$(printf %s "$script" | base64 -d)
      said=$(timeout 300 bash -c "$script" 2>&1 </dev/null 3>&-)
      status=$?
      printf '%s %s %s\n' "$id" "$status" "$(printf %s "$said" | base64 -w 0)" >&3
    done
    exec 3>&-
  fi
  sleep 0.2
done
