"""UI scripts that the desktop program and the page both pass. viewer/app/script.h has the words."""

# {profile} and {other}: of one model, three layers of two heads; {profile} has captured rows.
SESSION = """
open {profile}
wait
expect selection == double.0.0 head 0
# Selected by mouse, then by keys.
click tile.3
wait
expect selection == double.1.0 head 1
key right
expect selection == double.2.0 head 0
key up
expect selection == double.1.0 head 0
key left
expect selection == double.0.0 head 1
expect head.rows == true
wait
# The slider moves the mask in the document.
let before = mask.count
let kept = mask.retained
expect modified == false
drag density.slider 0.4 0.5 0.8 0.5
expect mask.count > $before
expect mask.retained > $kept
expect head.density > 0.7
expect steps == 1
expect edited == 1
let after = mask.count
key ctrl+z
expect mask.count == $before
expect modified == false
key ctrl+y
expect mask.count == $after
# An order, chosen in the profile panel, locks the head.
click profile.order
frames 2
click order.WHF
wait
expect head.order == WHF
expect head.locked == true
click profile.lock
expect head.locked == false
click toolbar.undo
expect head.locked == true
# The whole layer, then all heads.
click density.scope_layer
drag density.slider 0.5 0.5 0.1 0.5
expect edited == 2
click density.scope_all
drag density.slider 0.3 0.5 0.6 0.5
expect default.density > 0.5
click toolbar.save
until modified == false
expect messages ~ Saved
open {other}
wait
expect path ~ other.json
open {profile}
wait
key right
expect head.order == WHF
expect head.locked == true
expect default.density > 0.5
# Compared with another profile.
dialog compare
click dialog.name
type {other}
click dialog.ok
until differences > 0
"""

ZOOM = """
open {profile}
wait
expect view.width == 1
wheel map.FWH 4
expect view.width < 0.5
let width = view.width
drag map.WHF 0.5 0.5 0.2 0.5
expect view.width == $width
expect view.left > 0.1
click head.whole
expect view.width == 1
let density = head.density
key ] 3
expect head.density > $density
key f1
expect help == true
key f1
expect help == false
maximise kernel
frames 2
expect maximised == kernel
key escape
"""

FILTER = """
open {profile}
wait
expect listed == 6
click overview.filter
frames 2
click filter.edited
frames 2
expect listed == 0
click filter.all
frames 2
expect listed == 6
"""
