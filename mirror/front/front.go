// Package front is the upper door of the mirror: it offers a volume to the
// machine. There are several ways to do so, the front ends; each turns what
// its clients ask into block.Request and hands it to one block.Handler.
package front

import (
	"context"

	"hapair/mirror/block"
	"hapair/mirror/front/holder"
)

// Holder is one user of a device.
type Holder = holder.Holder

// BusyError says that a device was not given up because it is in use.
type BusyError = holder.BusyError

// Mounted is the holder that is a file system mounted on a directory here.
func Mounted(dir string) Holder { return holder.Mounted(dir) }

// Frontend offers one volume. Methods may be called concurrently. After Stop
// or Abort it may be started again.
type Frontend interface {
	// Start offers the device; path is what an operator opens: a URI with a
	// unix socket, or a block device. ctx bounds the start alone. On an error
	// nothing is left behind.
	Start(ctx context.Context, h block.Handler, g block.Geometry) (path string, err error)

	// Stop withdraws the device: on a nil return no request will come any
	// more and none is at the Handler. If the device is held open it returns
	// *BusyError naming the holders, and the device stays up.
	Stop(ctx context.Context) error

	// Abort withdraws the device whatever its state, for a node that has lost
	// its authority: what is in flight fails at its users, and holders get
	// errors from now on. It does not wait for the Handler, where requests
	// submitted earlier may still be; their completions go nowhere. At most
	// the requests that are inside Submit at that moment follow.
	Abort(ctx context.Context) error

	// Resize tells the users of a device that is offered that the volume has
	// another size; the rest of g is as it was. On a nil return whoever opens the
	// device sees it, and who has it open can. ctx is asked before it begins.
	Resize(ctx context.Context, g block.Geometry) error

	// Kind is "export" or "fuse".
	Kind() string

	// Holders lists who holds the device open.
	Holders() ([]Holder, error)
}
