package socp

// Receipts: given to those who ask for them, and counted where one asked for them oneself.

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "socp.example/interop/gen/socp/v1"
)

const (
	gatherTime = 500 * time.Millisecond // a burst is answered with few receipts
	maxIDs     = 100                    // in one
	maxAsked   = 10_000
)

// receipts are those of one client. Its own messages that asked for one are forgotten after the newest ones.
type receipts struct {
	mu       sync.Mutex
	gathered map[Who][]string
	asked    map[string]Who // by id the recipient
	newest   []string
}

// ask notes that a receipt was asked for.
func (r *receipts) ask(id string, to Who) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = map[string]Who{}
	}
	r.asked[id] = to
	if r.newest = append(r.newest, id); len(r.newest) > maxAsked {
		delete(r.asked, r.newest[0])
		r.newest = r.newest[1:]
	}
}

// answered gives which of the own messages a receipt speaks of: it is the word of its sender on messages to them.
func (r *receipts) answered(from Who, receipt *pb.Receipt) (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range receipt.MessageIds {
		if to, asked := r.asked[id]; asked && to == from {
			ids = append(ids, id)
		}
	}
	return ids
}

// giveReceipt tells the sender of a message that it came, if that is wanted by both. It is gathered with others first.
func (c *Client) giveReceipt(ctx context.Context, text *Text) {
	if c.Receipts == pb.ReceiptKind_RECEIPT_KIND_UNSPECIFIED || !text.wantsReceipt {
		return
	}
	r := &c.receipts
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gathered == nil {
		r.gathered = map[Who][]string{}
		time.AfterFunc(gatherTime, func() { c.giveReceipts(ctx) })
	}
	r.gathered[text.From] = append(r.gathered[text.From], text.ID)
}

// giveReceipts sends what was gathered. One that cannot be sent says nothing.
func (c *Client) giveReceipts(ctx context.Context) {
	r := &c.receipts
	r.mu.Lock()
	gathered := r.gathered
	r.gathered = nil
	r.mu.Unlock()
	for to, ids := range gathered {
		for some := range slices.Chunk(ids, maxIDs) {
			if err := c.sendReceipt(ctx, to, &pb.Receipt{Kind: c.Receipts, MessageIds: some}); err != nil {
				c.Events.Note(fmt.Sprintf("a receipt for %s was not sent: %v", to.Name, err))
			}
		}
	}
}

func (c *Client) sendReceipt(ctx context.Context, to Who, receipt *pb.Receipt) error {
	var key *Key
	c.locked(func() { key = c.pins[to] }) // the message was opened by it
	_, err := c.Send(ctx, to.Home, c.Seal(to, key.Public, Content{Receipt: receipt}))
	return err
}
