#!/bin/sh
# Run a command as an ordinary user, also where this Python lives below root's private folder.
exec unshare -m sh -c 'mount --make-rprivate / && mount --bind /root/.pyenv /mnt && mount -t tmpfs -o mode=755 none /root && mkdir /root/.pyenv && mount --move /mnt /root/.pyenv && exec setpriv --reuid 65533 --regid 65533 --clear-groups --inh-caps=-all env HOME=/ "$@"' sh "$@"
