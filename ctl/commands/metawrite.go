package commands

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror/meta"
	"hapair/mirror/store"
)

// writeMetadata prepares one volume's metadata on a disk no agent has open. The
// disk is held exclusively meanwhile.
func writeMetadata(j metadataJob) (info apiv1.MetadataInfo, err error) {
	disk, err := store.Open(j.disk, store.Options{})
	if err != nil {
		return info, metadataProblem(err, j)
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	p := meta.CreateParams{
		Placement: meta.Internal, DataBytes: j.sizeBytes,
		Cluster: j.cluster, Resource: j.resource, Volume: uint16(j.volume), Node: j.node, Peer: j.peer,
		Force: j.force, LastEnd: j.end.Last(),
	}
	if j.assumeClean {
		p.Flags = meta.AssumeClean
	}
	if size := disk.Geometry().SizeBytes; j.sizeBytes > size {
		return info, usage("", "size %s is more than %s has (%s)", bytesText(j.sizeBytes), j.disk, bytesText(size))
	}
	var s meta.Super
	if j.metadata == config.Internal {
		s, err = meta.Create(disk, p)
	} else {
		p.Placement = meta.External
		if p.DataBytes == 0 {
			p.DataBytes = disk.Geometry().SizeBytes
		}
		s, err = createExternal(j.metadata, p)
	}
	if err != nil {
		return info, metadataProblem(err, j)
	}
	return apiv1.MetadataInfo{
		Volume: j.volume, Disk: j.disk, Metadata: j.metadata,
		UsableBytes: s.DataBytes, MetadataBytes: meta.Needed(s.DataBytes), AssumedClean: j.assumeClean,
	}, nil
}

// createExternal writes metadata on a device or file of its own. A file that is
// not there is made in the right size; a device is never made.
func createExternal(path string, p meta.CreateParams) (s meta.Super, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !strings.HasPrefix(filepath.Clean(path), "/dev/") {
		if err := makeFile(path, meta.Needed(p.DataBytes)); err != nil {
			return s, err
		}
	}
	disk, err := store.Open(path, store.Options{})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	return meta.Create(disk, p)
}

// makeFile makes an empty file of a size, durably.
func makeFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make the metadata file: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make the metadata file %s of %d bytes: %w", path, size, err)
	}
	return nil
}

// metadataProblem says what would help.
func metadataProblem(err error, j metadataJob) error {
	p := &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error()}
	switch {
	case errors.Is(err, meta.ErrExists):
		p.Hint = "--force overwrites it; what this copy knew about its peer is lost then"
	case errors.Is(err, meta.ErrWouldCut) && j.metadata == config.Internal:
		p.Hint = "shrink the file system, enlarge the disk, or give the volume metadata of its own (metadata: PATH)"
	case errors.Is(err, meta.ErrWouldCut):
		p.Hint = "name an empty device for metadata, or --force"
	case errors.Is(err, meta.ErrTooSmall):
		p.Hint = "use a larger device"
	case errors.Is(err, store.ErrInUse), errors.Is(err, store.ErrMounted):
		p.Code, p.Hint = apiv1.CodeInUse, "free "+j.disk+" first; findmnt, lsblk and losetup -a tell who has it"
	default:
		p.Code = apiv1.CodeInternal
	}
	return p
}
