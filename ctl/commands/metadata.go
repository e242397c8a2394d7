package commands

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/ctl/client"
	"hapair/mirror/meta"
)

// metadataJob is one volume whose metadata is to be written without an agent.
type metadataJob struct {
	cluster, resource, node, peer string
	volume                        int
	disk, metadata                string // metadata: internal, or a path
	sizeBytes                     int64  // 0: all there is
	assumeClean, force            bool
	end                           meta.EndFile
}

// identity is whose metadata are wanted.
func (j *metadataJob) identity() meta.Identity {
	return meta.Identity{Cluster: j.cluster, Resource: j.resource, Volume: uint16(j.volume), Node: j.node, LastEnd: j.end.Last()}
}

func (a *app) createMetadataCmd() *cobra.Command {
	var req apiv1.CreateMetadataRequest
	var which whichDisks
	c := &cobra.Command{
		Use: "create-metadata RES", Short: "write fresh metadata on this node's disks of a resource",
		Long: "create-metadata prepares the disks of a resource on this node. It works while\n" +
			"haagent is stopped: a running one has the disks, and refuses. A disk that carries\nmetadata, or a file system that would be cut, is refused.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.resourceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Volume = which.chosen(cmd)
			made, err := a.createMetadata(cmd.Context(), args[0], which.node, req)
			if err != nil {
				return err
			}
			return a.show(made, renderMetadata(args[0], made))
		},
	}
	c.Flags().BoolVar(&req.AssumeClean, "assume-clean", false, "both copies are equal already (fresh disks, or copied by hand): no first resync")
	c.Flags().BoolVar(&req.Force, "force", false, "overwrite metadata that is there")
	which.flags(c)
	return c
}

// whichDisks are the flags that choose among the disks of a resource on this node.
type whichDisks struct {
	node   string
	volume int
}

func (w *whichDisks) flags(c *cobra.Command) {
	c.Flags().IntVar(&w.volume, "volume", -1, "only this volume")
	c.Flags().StringVar(&w.node, "node", "", "which node this machine is (default: by host name and addresses)")
}

// chosen is the volume that was asked for, nil for all.
func (w *whichDisks) chosen(c *cobra.Command) *int {
	if !c.Flags().Changed("volume") {
		return nil
	}
	return &w.volume
}

// createMetadata asks the agent first: one that has the disks says so.
func (a *app) createMetadata(ctx context.Context, resource, node string, req apiv1.CreateMetadataRequest) (apiv1.CreatedMetadata, error) {
	made, err := a.client().CreateMetadata(ctx, resource, req)
	var gone *client.UnreachableError
	if !errors.As(err, &gone) {
		return made, err
	}
	jobs, err := a.metadataJobs(resource, node, req)
	if err != nil {
		return made, err
	}
	for _, j := range jobs {
		info, err := writeMetadata(j)
		if err != nil {
			return made, fmt.Errorf("volume %d: %w", j.volume, err)
		}
		made.Volumes = append(made.Volumes, info)
	}
	return made, nil
}

// metadataJobs reads the configuration: it needs no agent.
func (a *app) metadataJobs(resource, node string, req apiv1.CreateMetadataRequest) ([]metadataJob, error) {
	cfg, err := config.Load(a.cfg)
	if err != nil {
		return nil, err
	}
	node, err = selfNode(cfg, node)
	if err != nil {
		return nil, err
	}
	r := cfg.Resource(resource)
	if r == nil {
		return nil, usage("hactl config show", "no resource %q in the configuration", resource)
	}
	peer := cfg.Peer(node)
	if peer == nil {
		return nil, usage("run it on a data node", "node %q has no disks", node)
	}
	if req.Volume != nil && (*req.Volume < 0 || *req.Volume >= len(r.Volumes)) {
		return nil, usage("volumes are numbered from 0", "resource %q has no volume %d", resource, *req.Volume)
	}
	var jobs []metadataJob
	for i, v := range r.Volumes {
		if req.Volume != nil && *req.Volume != i {
			continue
		}
		jobs = append(jobs, metadataJob{
			cluster: cfg.Cluster, resource: resource, node: node, peer: peer.Name, volume: i,
			disk: v.Disk.For(node), metadata: v.Metadata.For(node), sizeBytes: int64(v.Size),
			assumeClean: req.AssumeClean, force: req.Force, end: meta.EndFileOf(cfg.StateDir, resource, i),
		})
	}
	return jobs, nil
}

func renderMetadata(resource string, made apiv1.CreatedMetadata) string {
	var b strings.Builder
	for _, v := range made.Volumes {
		fmt.Fprintf(&b, "%s/%d: %s usable on %s, %s of metadata (%s)", resource, v.Volume, bytesText(v.UsableBytes), clean(v.Disk), bytesText(v.MetadataBytes), clean(v.Metadata))
		if v.AssumedClean {
			b.WriteString(", taken as equal to the peer's")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
