package socp

// What arrives while one is online: messages, posts, and what became of messages that were queued.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	pb "socp.example/interop/gen/socp/v1"
)

// Events are told by Run from two goroutines, that of the watch and that of the attached stream. They must not block.
type Events interface {
	Added(*pb.DirectoryEntry)
	Updated(*pb.DirectoryEntry)
	Removed(*pb.DirectoryEntry)
	Attached()
	Received(*Text)
	Settled(*Settled)
	Note(string) // what a person should know: breaks, unreadable messages, changed keys
}

// Text is a message or a post that was opened. It may hold control characters.
type Text struct {
	From     Who
	ID, Text string
	ToAll    bool
	TimeMS   int64            // by the sender's clock
	File     *pb.FileManifest // of a message that brings a file, for ReceiveFile; the text is for programs that know no files
	Receipt  *pb.Receipt      // the word of its sender on messages to them, without a text
	Answered []string         // those of the own messages that the receipt speaks of

	wantsReceipt bool
}

// Settled is what became of a message that was queued. Kind is HANDED_OVER, STORED, REJECTED (with the reason) or EXPIRED:
// three days went by without a word, and it may have arrived all the same.
type Settled struct {
	MessageID string
	To        Who
	Kind      pb.OutcomeKind
	Reason    string
}

// attach receives on one stream; holding it open is being online. It ends with nil when the session was detached.
func (c *Client) attach(ctx context.Context, good func()) error {
	ctx, cancel := context.WithCancel(ctx)
	alarm := time.AfterFunc(callTimeout, cancel) // for the first event; then the pings tell
	defer alarm.Stop()
	device, unacknowledged := c.Device, 0
	from := &pb.AttachRequest{DeviceId: device.ID, Cursor: device.Cursor, ChannelCursor: device.ChannelCursor}
	stream, err := c.Messages.Attach(ctx, from, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			if Reason(err) == "CURSOR_UNKNOWN" { // the home lost its disk: all of the inbox, without what was shown
				which := &device.Cursor
				if refusal(err).Metadata["field"] == "channel_cursor" {
					which = &device.ChannelCursor
				}
				err = errors.Join(err, device.keep(which, ""))
			}
			return err
		}
		var text *Text
		place := &device.Cursor
		switch event := m.Event.(type) {
		case *pb.AttachResponse_Attached:
			alarm.Stop()
			good()
			if device.ChannelCursor == "" {
				place, m.Cursor = &device.ChannelCursor, event.Attached.NewestChannelCursor
			}
			c.Events.Attached()
		case *pb.AttachResponse_Message:
			text, err = c.openMessage(ctx, event.Message.Message)
		case *pb.AttachResponse_Post:
			place = &device.ChannelCursor
			text, err = c.openPost(ctx, event.Post.Post, event.Post.WrappedChannelKey)
		case *pb.AttachResponse_Outcome:
			err = c.settle(event.Outcome)
		case *pb.AttachResponse_Gap:
			c.Events.Note(fmt.Sprintf("%d messages are gone that this device has not had", event.Gap.Missed))
		case *pb.AttachResponse_ChannelGap:
			c.Events.Note(fmt.Sprintf("up to %d posts are gone that this device has not had", event.ChannelGap.Missed))
		}
		if err != nil {
			c.Events.Note(fmt.Sprintf("something unreadable came: %v", err)) // the sender is not told why
		} else if text != nil {
			c.Events.Received(text)
			c.giveReceipt(context.WithoutCancel(ctx), text)
		}
		if m.Cursor == "" {
			continue
		}
		if err := device.keep(place, m.Cursor); err != nil { // it was dealt with, whatever it was
			c.Events.Note(fmt.Sprintf("the cursor is not kept: %v", err))
		}
		if place != &device.Cursor {
			continue
		}
		if unacknowledged++; unacknowledged == unsaid {
			unacknowledged = 0
			go Call(ctx, c, c.Messages.AcknowledgeMessages, &pb.AcknowledgeMessagesRequest{Cursor: m.Cursor})
		}
	}
}

// settle tells what became of a message that was queued. Of an earlier run's its hash is not known here.
func (c *Client) settle(r *pb.ReceivedOutcome) error {
	var sent *[32]byte
	c.locked(func() {
		if hash, known := c.queued[r.MessageId]; known {
			sent = &hash
		}
	})
	outcome, err := checkSettled(r, c.ServerID, sent)
	if err != nil {
		return err
	}
	c.locked(func() { delete(c.queued, r.MessageId) })
	c.Events.Settled(&Settled{r.MessageId, Who{r.Recipient, r.RecipientHomeId}, outcome.Kind, outcome.Reason})
	return nil
}
