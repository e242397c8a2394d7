// Package mirror is the face of the mirror room: replicated resources.
//
// One write, from the device to the answer:
//
//	front/…            a front end hands a block.Request to a Volume
//	resource.go        Submit: the engine is stepped under the resource's lock
//	engine/submit.go   judged; without a lease it is held
//	engine/conflict.go overlapping writes wait
//	engine/activity.go cold extent: an activity-log transaction first
//	engine/write.go    local write and frame to the peer, side by side
//	store, link        the disk and the wire, each coming back as an event
//	engine/answer.go   settled: the lease is checked, the request answered
//	perform.go         Done runs, the front end replies
//
// Package engine decides everything; this package only brings it events and
// carries out its effects. See DESIGN.md for goroutines and locks.
package mirror
