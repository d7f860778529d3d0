#!/bin/sh
# The same fast motions seen with the shutter open for 17, 33, 66 and 100 ms (the frame rate falls as it must): the set
# of benchmarks/blur_pays.py. 0.8 s each of a run, a kick, a dance and a jump; a seed fixes motion, body, room and
# camera (the start of the stretch varies by a frame with the length). About 6 minutes of one core.
#   benchmarks/make_exposures.sh DIR [SECONDS]     (needs anny, the CMU subset and the DeepMimic clips: docs/data.md)
set -eu
out=${1:?usage: make_exposures.sh DIR [SECONDS]}
tenths=$(awk "BEGIN { print int(10 * ${2:-0.8} + 0.5) }")
motion() {  # NAME SPLIT SEED WORD...   (dances are in the training split alone; no network sees the pictures)
    name=$1 split=$2 seed=$3
    shift 3
    for exposure in 017:30:0.5:3 033:30:0.99:3 066:15:0.99:1.5 100:10:0.99:1; do
        IFS=: read -r ms fps duty per_tenth <<EOF
$exposure
EOF
        frames=$(awk "BEGIN { print int($tenths * $per_tenth) }")
        python3 -m blur_motion_ros.cli synth --out "$out" --name "ms${ms}_$name" --seed "$seed" --count 1 \
            --clips "$@" --set split="$split" --set body=anny --set candidates=3 --set sharp=false \
            --set fps="$fps" --set duty="$duty" --set frames="$frames"
    done
}
motion run   test  2000 running
motion kick  test  2010 kick
motion dance train 2020 dance_a dance_b
motion jump  test  2030 jump
python3 -m blur_motion_ros.cli synth --out "$out" --verify
