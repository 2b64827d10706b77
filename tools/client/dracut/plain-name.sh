#!/bin/sh
# Sourced: takes the port and the slash out of `root=nbd:SERVER:PORT/NAME` and `nbd:SERVER:/NAME`.
#
# dracut.cmdline(7) tells of the first form, but the module takes all of it for the name.

plain_name() {
    case $1 in
    nbd:\[*\]:*)
        head=${1%%\]:*}]
        rest=${1#*\]:}
        ;;
    nbd:*:*)
        head=${1#nbd:}
        head=nbd:${head%%:*}
        rest=${1#nbd:*:}
        ;;
    *)
        echo "$1"
        return
        ;;
    esac
    name=${rest%%:*}
    more=${rest#"$name"}
    case $name in
    /*) name=${name#/} ;;
    10809/*) name=${name#10809/} ;;
    esac
    echo "$head:$name$more"
}

[ -z "$root" ] || root=$(plain_name "$root")
[ -z "$netroot" ] || netroot=$(plain_name "$netroot")
