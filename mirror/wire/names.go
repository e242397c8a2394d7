package wire

import "fmt"

var kindNames = [...]string{
	"Invalid", "Hello", "Bitmap", "BitmapDone", "Write", "WriteZeroes", "Discard", "Flush", "Ack",
	"SyncStart", "SyncDone", "InSync", "State", "Refuse", "Ping", "Pong", "Read", "Data", "Verify", "Verified",
}

// String returns the name of the kind as it stands in this package.
func (k Kind) String() string {
	if k == Invalid || k.Known() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Known reports whether this release knows what to do with the kind.
func (k Kind) Known() bool { return k > Invalid && k <= lastKind }

// Changes reports whether a message of this kind alters a range of a volume.
func (k Kind) Changes() bool { return k == Write || k == WriteZeroes || k == Discard }

// HasBlocks reports whether a message of this kind names a range of a volume
// in Offset and Length.
func (k Kind) HasBlocks() bool { return k.Changes() || k == Read || k == Data || k == Verify }

var statusNames = [...]string{
	"ok", "input/output error", "no space left", "stale token", "split brain", "unrelated data",
	"geometry differs", "message does not fit the state", "message not understood", "orderly shutdown", "congested",
}

// String returns the outcome in words. A status of a later release, which is
// never OK, is shown by its number.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint16(s))
}

// String names the message as every log line does: Write(volume, offset, length) #id.
func (m *Message) String() string {
	switch {
	case m.Kind.HasBlocks(), m.Kind == Verify:
		return fmt.Sprintf("%s(%d, %d, %d) #%d", m.Kind, m.Volume, m.Offset, m.Length, m.ID)
	case m.Kind == Ack, m.Kind == Refuse, m.Kind == Verified:
		return fmt.Sprintf("%s(%s) #%d", m.Kind, m.Status, m.ID)
	}
	return fmt.Sprintf("%s #%d", m.Kind, m.ID)
}

// Release gives the memory behind Data back. Whoever received the message and
// did not take Buffer over calls it, once; Data must not be used afterwards.
func (m *Message) Release() {
	if m.Buffer != nil {
		m.Buffer.Put()
		m.Buffer = nil
	}
	m.Data = nil
}
