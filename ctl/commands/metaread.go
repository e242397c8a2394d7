package commands

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/meta"
	"hapair/mirror/store"
)

// dirtyListMax is how many ranges of a bitmap are listed; all are counted.
const dirtyListMax = 64

// metadataDump is what the metadata of one volume say.
type metadataDump struct {
	Volume   int    `json:"volume"`
	Disk     string `json:"disk"`
	Metadata string `json:"metadata"` // internal, or a path

	Format        int    `json:"format"`
	Device        string `json:"device"`
	Cluster       string `json:"cluster"`
	Resource      string `json:"resource"`
	Node          string `json:"node"`
	Peer          string `json:"peer"`
	SizeBytes     int64  `json:"size_bytes"`
	MetadataBytes int64  `json:"metadata_bytes"`

	DiskState   string      `json:"disk_state"`
	Flags       string      `json:"flags"`
	Token       uint64      `json:"token"`
	Sequence    uint64      `json:"sequence"`
	Generations generations `json:"generations"`

	ActivitySlots int      `json:"activity_slots"`
	HotExtents    []uint32 `json:"hot_extents"` // count unless the flags say Clean

	DirtyBytes int64    `json:"dirty_bytes"`
	Dirty      []extent `json:"dirty"`
	DirtyMore  bool     `json:"dirty_more"` // dirty is not all of it

	// Repairs is what is damaged, and how an agent would make it good.
	Repairs []string `json:"repairs"`
}

type generations struct {
	Current string   `json:"current"`
	Bitmap  string   `json:"bitmap"`
	History []string `json:"history"`
}

type extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func (a *app) dumpMetadataCmd() *cobra.Command {
	return a.metadataCmd("dump-metadata RES", "show what the metadata of this node's disks say",
		"dump-metadata reads the metadata of a resource from this node's disks and shows all\nof it: generations, flags, the activity log, what is marked as out of sync. It\nchanges nothing, and needs no agent; beside one it shows what is on disk.",
		func(resource string, found []metadataDump) error { return a.show(found, renderDump(resource, found)) })
}

func (a *app) checkMetadataCmd() *cobra.Command {
	return a.metadataCmd("check-metadata RES", "say whether the metadata of this node's disks are in order",
		"check-metadata reads the metadata of a resource from this node's disks, every\nblock of it, and says what is damaged. It changes nothing.",
		func(resource string, found []metadataDump) error {
			var bad []string
			for i := range found {
				for _, r := range found[i].Repairs {
					bad = append(bad, fmt.Sprintf("%s/%d: %s", resource, found[i].Volume, r))
				}
			}
			if len(bad) > 0 {
				return &apiv1.Problem{Code: apiv1.CodeInternal, Text: strings.Join(bad, "\n"), Hint: "an agent makes it good when it starts; the copy is brought in line by the peer"}
			}
			text := ""
			for i := range found {
				text += fmt.Sprintf("%s/%d: in order\n", resource, found[i].Volume)
			}
			return a.show(found, text)
		})
}

func (a *app) metadataCmd(use, short, long string, show func(resource string, found []metadataDump) error) *cobra.Command {
	var which whichDisks
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := a.readMetadata(args[0], which.node, apiv1.CreateMetadataRequest{Volume: which.chosen(cmd)})
			if err != nil {
				return err
			}
			return show(args[0], found)
		},
	}
	which.flags(c)
	return c
}

func (a *app) readMetadata(resource, node string, req apiv1.CreateMetadataRequest) (found []metadataDump, err error) {
	jobs, err := a.metadataJobs(resource, node, req)
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		d, err := readVolume(j)
		if err != nil {
			return nil, metadataReadProblem(err, j)
		}
		found = append(found, d)
	}
	return found, nil
}

// readVolume opens nothing for writing, and locks nothing.
func readVolume(j metadataJob) (d metadataDump, err error) {
	path, place := j.metadata, meta.External
	if j.metadata == config.Internal {
		path, place = j.disk, meta.Internal
	}
	disk, err := store.Open(path, store.Options{ReadOnly: true})
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	_, snap, err := meta.Open(disk, place, j.identity())
	if err != nil {
		return d, err
	}
	s := &snap.Super
	d = metadataDump{
		Volume: j.volume, Disk: j.disk, Metadata: j.metadata, Format: meta.FormatVersion, Device: s.Device.String(),
		Cluster: s.Cluster, Resource: s.Resource, Node: s.Node, Peer: s.Peer, SizeBytes: s.DataBytes,
		MetadataBytes: meta.NeededFor(s.DataBytes, s.ActivitySlots), DiskState: s.Disk.String(), Flags: s.Flags.String(), Token: s.Token, Sequence: s.Sequence,
		Generations: generationsOf(&s.Generations), ActivitySlots: s.ActivitySlots, HotExtents: listed(snap.HotExtents), DirtyBytes: snap.Bitmap.DirtyBytes(), Dirty: []extent{}, Repairs: listed(snap.Repairs),
	}
	for from := int64(0); ; {
		off, length, ok := snap.Bitmap.NextRun(from, s.DataBytes)
		if !ok {
			return d, nil
		}
		if len(d.Dirty) == dirtyListMax {
			d.DirtyMore = true
			return d, nil
		}
		d.Dirty, from = append(d.Dirty, extent{off, length}), off+length
	}
}

// listed is a list that JSON shows as one, be it empty.
func listed[T any](list []T) []T { return append([]T{}, list...) }

func generationsOf(s *genid.Set) (g generations) {
	g.Current, g.Bitmap = s.Current.String(), s.Bitmap.String()
	for _, id := range s.History {
		if id != 0 {
			g.History = append(g.History, id.String())
		}
	}
	return g
}

func metadataReadProblem(err error, j metadataJob) error {
	p := &apiv1.Problem{Code: apiv1.CodeInternal, Text: fmt.Sprintf("volume %d: %v", j.volume, err)}
	switch {
	case errors.Is(err, meta.ErrNone):
		p.Code, p.Hint = apiv1.CodeNotFound, "hactl create-metadata "+j.resource
	case errors.Is(err, block.ErrNotSupp): // the reader may not write
		p.Hint = "the activity log is damaged; an agent makes it good when it starts, and everything is copied from the peer"
	}
	return p
}

func renderDump(resource string, found []metadataDump) string {
	var b strings.Builder
	for i := range found {
		d := &found[i]
		fmt.Fprintf(&b, "%s/%d  on %s, metadata %s, format %d\n", resource, d.Volume, clean(d.Disk), clean(d.Metadata), d.Format)
		fmt.Fprintf(&b, "  of          %s/%s on %s, peer %s, device %s\n", clean(d.Cluster), clean(d.Resource), clean(d.Node), clean(d.Peer), d.Device)
		fmt.Fprintf(&b, "  size        %s, %s of metadata\n", bytesText(d.SizeBytes), bytesText(d.MetadataBytes))
		fmt.Fprintf(&b, "  copy        %s, token %d, flags %s, superblock %d\n", d.DiskState, d.Token, orNone(d.Flags), d.Sequence)
		fmt.Fprintf(&b, "  generation  current %s, bitmap %s, history %s\n", d.Generations.Current, d.Generations.Bitmap, orNone(strings.Join(d.Generations.History, " ")))
		fmt.Fprintf(&b, "  hot         %d of %d extents %v\n", len(d.HotExtents), d.ActivitySlots, d.HotExtents)
		fmt.Fprintf(&b, "  dirty       %s\n", bytesText(d.DirtyBytes))
		for _, x := range d.Dirty {
			fmt.Fprintf(&b, "    %d+%d\n", x.Offset, x.Length)
		}
		if d.DirtyMore {
			b.WriteString("    and more\n")
		}
		for _, r := range d.Repairs {
			fmt.Fprintf(&b, "  DAMAGED     %s\n", r)
		}
	}
	return b.String()
}
