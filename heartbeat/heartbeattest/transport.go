// Package heartbeattest lets tests outside of package heartbeat run one on a
// network of their own, in memory and inside testing/synctest.
package heartbeattest

import (
	"reflect"
	"unsafe"

	"github.com/hashicorp/memberlist"

	"hapair/heartbeat"
)

// Transport makes the end of a path that membership uses.
type Transport = func(path string) (memberlist.Transport, error)

// On returns cfg with membership on the transports t makes; the carriers of
// the machine's own interfaces are not watched then. The field is not exported,
// because nothing but a test may set it: here it is reached by reflection, and
// On panics when it is no longer there.
func On(cfg heartbeat.Config, t Transport) heartbeat.Config {
	field := reflect.ValueOf(&cfg).Elem().FieldByName("transport")
	if !field.IsValid() || field.Type() != reflect.TypeOf(t) {
		panic("heartbeattest: heartbeat.Config has no field transport of the type known here")
	}
	*(*Transport)(unsafe.Pointer(field.UnsafeAddr())) = t
	return cfg
}
