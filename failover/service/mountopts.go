package service

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// flagOptions are the options mount(2) takes as bits; the value says whether
// the word sets or clears them.
var flagOptions = map[string]struct {
	bits  uintptr
	clear bool
}{
	"ro": {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true},
	"nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true},
	"nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true},
	"noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true},
	"sync": {unix.MS_SYNCHRONOUS, false}, "async": {unix.MS_SYNCHRONOUS, true},
	"dirsync": {unix.MS_DIRSYNC, false},
	"noatime": {unix.MS_NOATIME, false}, "atime": {unix.MS_NOATIME, true},
	"nodiratime": {unix.MS_NODIRATIME, false}, "diratime": {unix.MS_NODIRATIME, true},
	"relatime": {unix.MS_RELATIME, false}, "norelatime": {unix.MS_RELATIME, true},
	"strictatime": {unix.MS_STRICTATIME, false}, "nostrictatime": {unix.MS_STRICTATIME, true},
	"lazytime": {unix.MS_LAZYTIME, false}, "nolazytime": {unix.MS_LAZYTIME, true},
	"silent": {unix.MS_SILENT, false}, "loud": {unix.MS_SILENT, true},
}

// ignoredOptions mean something to mount(8) and fstab alone.
var ignoredOptions = map[string]bool{
	"defaults": true, "auto": true, "noauto": true, "_netdev": true, "nofail": true,
	"user": true, "nouser": true, "users": true, "group": true, "owner": true,
}

// refusedOptions would make it another operation than mounting a device.
var refusedOptions = map[string]bool{
	"bind": true, "rbind": true, "remount": true, "loop": true, "move": true,
	"shared": true, "slave": true, "private": true, "unbindable": true,
}

const optionsBytesMax = 4000 // a page, less what the kernel keeps

// parseOptions divides options, as in fstab, into mount(2)'s flags and the
// filesystem's own data.
func parseOptions(options string) (flags uintptr, data string, err error) {
	if len(options) > optionsBytesMax {
		return 0, "", fmt.Errorf("mount options of %d bytes, at most %d", len(options), optionsBytesMax)
	}
	if strings.ContainsRune(options, 0) {
		return 0, "", fmt.Errorf("mount options %q contain a zero byte", options)
	}
	var own []string
	for _, word := range strings.Split(options, ",") {
		key, _, _ := strings.Cut(word, "=")
		f, known := flagOptions[word]
		switch {
		case word == "" || ignoredOptions[word] || strings.HasPrefix(word, "x-") || strings.HasPrefix(word, "X-"):
		case refusedOptions[key]:
			return 0, "", fmt.Errorf("mount option %q makes no sense for a replicated device", word)
		case known && f.clear:
			flags &^= f.bits
		case known:
			flags |= f.bits
		default:
			own = append(own, word)
		}
	}
	return flags, strings.Join(own, ","), nil
}
