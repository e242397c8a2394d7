// Package killed kills processes with SIGKILL at the worst moment: while a
// thread of theirs waits in the kernel for a block device that they serve
// themselves. Each must go away within a bounded time, and what it left must
// be cleared as after any other death. A process that hangs there keeps its
// device, and whoever looks at it, waiting for ever.
//
// There is one test for every kind of call that may wait so, in the mirror's
// front end and in the services on top. They need root, FUSE and loop devices.
package killed
