package commands

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror/block"
	"hapair/mirror/meta"
	"hapair/mirror/store"
)

// movedMetadata is what move-metadata did for one volume.
type movedMetadata struct {
	Volume int    `json:"volume"`
	From   string `json:"from"` // internal, or a path
	To     string `json:"to"`
}

func (a *app) moveMetadataCmd() *cobra.Command {
	var which whichDisks
	var to string
	force := false
	c := &cobra.Command{
		Use: "move-metadata RES", Short: "move the metadata of a volume into a file or device of their own, or behind its data",
		Long: "move-metadata moves the metadata of a volume on this node, with all that they say,\n" +
			"from the end of its disk to a file or device of their own, or back, if there is room\n" +
			"behind the data. haagent is stopped meanwhile; the configuration is changed\nafterwards. If it is interrupted, run it again.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usage("--to internal, or --to PATH", "where are the metadata to be?")
			}
			jobs, err := a.metadataJobs(args[0], which.node, apiv1.CreateMetadataRequest{Volume: which.chosen(cmd), Force: force})
			if err != nil {
				return err
			}
			if len(jobs) != 1 {
				return usage("name it: --volume N", "%s has %d volumes, and one place is for one of them", args[0], len(jobs))
			}
			moved, err := moveMetadata(jobs[0], to)
			if err != nil {
				return err
			}
			return a.show(moved, fmt.Sprintf("%s/%d: the metadata were %s, and are %s now; in the configuration of this node, say so before haagent starts: metadata: %s\n",
				args[0], moved.Volume, clean(moved.From), clean(moved.To), clean(moved.To)))
		},
	}
	which.flags(c)
	c.Flags().StringVar(&to, "to", "", "internal, or the path of a file or device")
	c.Flags().BoolVar(&force, "force", false, "overwrite what the file or device holds")
	return c
}

// moveMetadata holds both disks exclusively meanwhile.
func moveMetadata(j metadataJob, to string) (m movedMetadata, err error) {
	m = movedMetadata{Volume: j.volume, From: j.metadata, To: to}
	at, place, outer := meta.Internal, meta.External, to
	if j.metadata != config.Internal {
		at, place, outer = meta.External, meta.Internal, j.metadata
	}
	switch {
	case (to == config.Internal) != (place == meta.Internal):
		return m, usage("", "the configuration says metadata: %s for volume %d of this node: that cannot be moved to %s", j.metadata, j.volume, to)
	case to != config.Internal && !filepath.IsAbs(to):
		return m, usage("", "--to %q: internal, or a path from / on", to)
	}
	data, err := store.Open(j.disk, store.Options{})
	if err != nil {
		return m, metadataProblem(err, j)
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	if place == meta.External {
		if err := fileFor(outer, data, j); err != nil {
			return m, moveProblem(err, j)
		}
	}
	own, err := store.Open(outer, store.Options{})
	if err != nil {
		return m, metadataProblem(err, j)
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	from, target := block.Disk(data), block.Disk(own)
	if at == meta.External {
		from, target = own, data
	}
	if _, err := meta.Move(from, at, target, place, j.identity(), j.force); err != nil {
		return m, moveProblem(err, j)
	}
	return m, nil
}

// fileFor makes the file that the metadata of a disk go to, if there is none.
func fileFor(path string, data block.Disk, j metadataJob) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(filepath.Clean(path), "/dev/") {
		return nil // what is wrong with it is found when it is opened
	}
	_, snap, err := meta.Open(data, meta.Internal, j.identity())
	if err != nil {
		return err
	}
	return makeFile(path, meta.NeededFor(snap.Super.DataBytes, snap.Super.ActivitySlots))
}

func moveProblem(err error, j metadataJob) error {
	p := &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("volume %d: %v", j.volume, err)}
	switch {
	case errors.Is(err, meta.ErrNone):
		p.Code, p.Hint = apiv1.CodeNotFound, "hactl create-metadata "+j.resource
	case errors.Is(err, meta.ErrTooSmall):
		p.Hint = "enlarge the disk by that much, or leave the metadata where they are"
	case errors.Is(err, meta.ErrExists), errors.Is(err, meta.ErrWouldCut):
		p.Hint = "--force overwrites what is there"
	}
	return p
}

// convertedMetadata is what convert-metadata found and did for one volume.
type convertedMetadata struct {
	Volume int `json:"volume"`
	Was    int `json:"was_version"`
	Now    int `json:"now_version"`
}

func (a *app) convertMetadataCmd() *cobra.Command {
	var which whichDisks
	c := &cobra.Command{
		Use: "convert-metadata RES", Short: "bring the metadata of this node's disks to the newest format",
		Long: "convert-metadata brings the metadata of a resource on this node's disks to the newest\n" +
			"format version that this release knows. haagent is stopped meanwhile. What is of a\nlater release is refused.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			jobs, err := a.metadataJobs(args[0], which.node, apiv1.CreateMetadataRequest{Volume: which.chosen(cmd)})
			if err != nil {
				return err
			}
			var done []convertedMetadata
			text := ""
			for _, j := range jobs {
				was, err := convertMetadata(j)
				if err != nil {
					return err
				}
				done = append(done, convertedMetadata{j.volume, was, meta.FormatVersion})
				if was == meta.FormatVersion {
					text += fmt.Sprintf("%s/%d: already version %d, the newest that this release knows\n", args[0], j.volume, was)
				} else {
					text += fmt.Sprintf("%s/%d: was version %d, is version %d\n", args[0], j.volume, was, meta.FormatVersion)
				}
			}
			return a.show(done, text)
		},
	}
	which.flags(c)
	return c
}

func convertMetadata(j metadataJob) (was int, err error) {
	path, place := j.metadata, meta.External
	if j.metadata == config.Internal {
		path, place = j.disk, meta.Internal
	}
	disk, err := store.Open(path, store.Options{})
	if err != nil {
		return 0, metadataProblem(err, j)
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	if was, err = meta.Convert(disk, place); err != nil {
		return was, moveProblem(err, j)
	}
	return was, nil
}
