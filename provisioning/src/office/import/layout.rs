//! The layout of types in the memory of M241, M251 and M262.
//!
//! Each member begins at a multiple of its alignment, which is the size of an elementary type and
//! the largest alignment within a structure; a structure is as long as a multiple of its alignment.
//! `pack_mode` limits the alignment. Consecutive members of type BIT share a byte, eight in each.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::declaration::{
    Declarations, EnumerationBody, MemberDeclaration, StructureBody, TextWidth, TypeBody,
    TypeDefinition, TypeExpression,
};
use super::expression::{ConstantValues, Expression};
use super::skip::SkipReason;
use crate::plc::{CodePage, IecType};

/// Deepest nesting of types.
const MAX_DEPTH: usize = 32;
/// Size of a pointer or reference: these controllers have 32 bits.
const POINTER_BYTES: u64 = 4;
/// Most values of an enumeration whose names are kept.
const MAX_ENUM_VALUES: usize = 1_000;

/// The layout of a type.
#[derive(Debug)]
pub(super) struct Layout {
    /// Size in bytes.
    pub(super) size: u64,
    /// Alignment in bytes.
    pub(super) alignment: u64,
    pub(super) content: MemberContent,
}

/// What a type consists of.
#[derive(Debug)]
pub(super) enum MemberContent {
    Value(IecType, Option<Rc<BTreeMap<i64, String>>>),
    /// One bit.
    Bit,
    /// A structure or a union.
    Members(Vec<LayoutMember>),
    /// First and last index of each dimension, of which the last one varies fastest.
    Array(Vec<(i64, i64)>, Rc<Layout>),
    /// Bytes that are no value.
    Opaque(SkipReason),
}

/// A member of a structure or a union.
#[derive(Debug)]
pub(super) struct LayoutMember {
    pub(super) name: String,
    /// First byte within the structure.
    pub(super) offset: u64,
    /// Bit within that byte for a BIT.
    pub(super) bit: Option<u8>,
    pub(super) comment: Option<String>,
    pub(super) layout: Rc<Layout>,
}

type Computed = Result<Rc<Layout>, SkipReason>;

/// Computes the layouts of types, each once.
#[derive(Debug)]
pub(super) struct Layouts<'a> {
    types: &'a BTreeMap<String, TypeDefinition>,
    constants: ConstantValues,
    /// `None` while a layout is being computed.
    computed: HashMap<&'a str, Option<Computed>>,
    depth: usize,
}

impl<'a> Layouts<'a> {
    pub(super) fn new(declarations: &'a Declarations) -> Self {
        Self {
            types: &declarations.types,
            constants: ConstantValues::new(&declarations.constants),
            computed: HashMap::new(),
            depth: 0,
        }
    }

    /// Returns the layout of a type.
    ///
    /// # Errors
    /// Why it has none.
    pub(super) fn layout(&mut self, declared: &TypeExpression) -> Computed {
        if self.depth == MAX_DEPTH {
            return Err(SkipReason::NestedTypes("of this variable".to_owned()));
        }
        self.depth += 1;
        let layout = self.layout_of(declared);
        self.depth -= 1;
        layout
    }

    fn layout_of(&mut self, declared: &TypeExpression) -> Computed {
        match declared {
            TypeExpression::Elementary(iec) => Ok(value(*iec, None)),
            TypeExpression::Bit => {
                Ok(Rc::new(Layout { size: 1, alignment: 1, content: MemberContent::Bit }))
            }
            TypeExpression::Text(width, length) => self.text(*width, length),
            TypeExpression::Named(name) => self.named(name),
            TypeExpression::Array(bounds, element) => self.array(bounds, element),
            TypeExpression::Inline(body) => self.body(body, "the type"),
            TypeExpression::Pointer(what) => Ok(Rc::new(Layout {
                size: POINTER_BYTES,
                alignment: POINTER_BYTES,
                content: MemberContent::Opaque(SkipReason::Pointer(what)),
            })),
            TypeExpression::Unsupported(what) => Err(SkipReason::UnsupportedType(what.clone())),
        }
    }

    fn named(&mut self, name: &str) -> Computed {
        let key = name.to_lowercase();
        let last = key.rsplit('.').next().unwrap_or_default();
        let found = self.types.get_key_value(&key).or_else(|| self.types.get_key_value(last));
        let Some((key, definition)) = found else {
            return Err(SkipReason::UnknownType(name.to_owned()));
        };
        match self.computed.get(key.as_str()) {
            Some(Some(layout)) => return layout.clone(),
            Some(None) => return Err(SkipReason::NestedTypes(definition.name.clone())),
            None => {}
        }
        self.computed.insert(key, None);
        let layout = self.body(&definition.body, &definition.name);
        let layout = layout.and_then(|layout| match definition.stated_size {
            Some(stated) if stated != layout.size => Err(SkipReason::LayoutMismatch {
                name: definition.name.clone(),
                computed: layout.size,
                stated,
            }),
            _ => Ok(layout),
        });
        self.computed.insert(key, Some(layout.clone()));
        layout
    }

    fn body(&mut self, body: &TypeBody, name: &str) -> Computed {
        match body {
            TypeBody::Alias(declared) => self.layout(declared),
            TypeBody::Structure(structure) => self.structure(structure, name),
            TypeBody::Union(members) => self.union(members, name),
            TypeBody::Enumeration(enumeration) => Ok(self.enumeration(enumeration)),
        }
    }

    fn text(&self, width: TextWidth, length: &Expression) -> Computed {
        let letters = self.number(length)?;
        let letters = u16::try_from(letters).ok();
        let letters = letters.filter(|letters| (1..=IecType::MAX_TEXT_LEN).contains(letters));
        let Some(letters) = letters else {
            let most = IecType::MAX_TEXT_LEN;
            let what = format!("the length of a text is 1 to {most}");
            return Err(SkipReason::UnsupportedType(what));
        };
        Ok(value(
            match width {
                TextWidth::Byte => IecType::String(letters, CodePage::Latin1),
                TextWidth::Word => IecType::Wstring(letters),
            },
            None,
        ))
    }

    fn number(&self, expression: &Expression) -> Result<i64, SkipReason> {
        expression.value(&|name| self.constants.get(name)).ok_or_else(|| {
            let name = match expression {
                Expression::Name(name) => name.clone(),
                Expression::Number(_) | Expression::Negative(_) | Expression::Operation(..) => {
                    "a bound or length".to_owned()
                }
            };
            SkipReason::UnknownConstant(name)
        })
    }

    fn array(&mut self, bounds: &[[Expression; 2]], element: &TypeExpression) -> Computed {
        let mut dims = Vec::with_capacity(bounds.len());
        let mut count = 1_u64;
        for [first, last] in bounds {
            let (first, last) = (self.number(first)?, self.number(last)?);
            let length = i128::from(last) - i128::from(first) + 1;
            let length = u64::try_from(length).ok().filter(|length| *length > 0);
            let Some(length) = length else {
                let what = format!("the bounds {first}..{last} are in the wrong order");
                return Err(SkipReason::UnsupportedType(what));
            };
            count = count.saturating_mul(length);
            dims.push((first, last));
        }
        let element = self.layout(element)?;
        if matches!(element.content, MemberContent::Bit) {
            return Err(SkipReason::UnsupportedType("BIT is no type for an array".to_owned()));
        }
        Ok(Rc::new(Layout {
            size: element.size.saturating_mul(count),
            alignment: element.alignment,
            content: MemberContent::Array(dims, element),
        }))
    }

    fn enumeration(&self, enumeration: &EnumerationBody) -> Rc<Layout> {
        let mut names: BTreeMap<i64, String> = BTreeMap::new();
        let mut own: HashMap<String, i64> = HashMap::new();
        let mut next = Some(0_i64);
        for (name, number) in &enumeration.values {
            let lookup = |name: &str| {
                let last = name.rsplit('.').next().unwrap_or_default().to_lowercase();
                own.get(&last).copied().or_else(|| self.constants.get(name))
            };
            let number = match number {
                Some(number) => number.value(&lookup),
                None => next,
            };
            next = number.and_then(|number| number.checked_add(1));
            let Some(number) = number else { continue };
            let is_new = own.insert(name.to_lowercase(), number).is_none();
            if is_new && names.len() < MAX_ENUM_VALUES {
                names.entry(number).or_insert_with(|| name.clone());
            }
        }
        value(enumeration.base, (!names.is_empty()).then(|| Rc::new(names)))
    }

    fn structure(&mut self, structure: &StructureBody, name: &str) -> Computed {
        if let Some(why) = structure.unknown_layout {
            return Err(SkipReason::UnknownLayout { name: name.to_owned(), why });
        }
        let mut placing = Placing::new(structure.pack_mode);
        if let Some(base) = &structure.extends {
            // By way of `layout`, which bounds the depth.
            let base = self.layout(&TypeExpression::Named(base.clone()))?;
            placing.place_base(&base, name)?;
        }
        for member in &structure.members {
            let layout = self.layout(&member.declared)?;
            placing.place(member, layout);
        }
        placing.finish(name)
    }

    fn union(&mut self, members: &[MemberDeclaration], name: &str) -> Computed {
        let (mut size, mut alignment) = (0, 1);
        let mut laid = Vec::with_capacity(members.len());
        for member in members {
            let layout = self.layout(&member.declared)?;
            size = layout.size.max(size);
            alignment = layout.alignment.max(alignment);
            let bit = matches!(layout.content, MemberContent::Bit).then_some(0);
            laid.push(LayoutMember {
                name: member.name.clone(),
                offset: 0,
                bit,
                comment: member.comment.clone(),
                layout,
            });
        }
        finished(laid, size, alignment, name)
    }
}

/// Places the members of a structure one after the other.
struct Placing {
    members: Vec<LayoutMember>,
    end: u64,
    alignment: u64,
    max_alignment: u64,
    /// Byte and number of the next bit while BITs follow each other.
    next_bit: Option<(u64, u8)>,
}

impl Placing {
    fn new(pack_mode: Option<u64>) -> Self {
        let max_alignment = pack_mode.unwrap_or(u64::MAX);
        Self { members: Vec::new(), end: 0, alignment: 1, max_alignment, next_bit: None }
    }

    /// Places the members of the structure that is extended. Whether its padding is kept is not
    /// documented, so it must have none.
    fn place_base(&mut self, base: &Rc<Layout>, name: &str) -> Result<(), SkipReason> {
        let MemberContent::Members(members) = &base.content else {
            let what = format!("{name} extends a type that is no structure");
            return Err(SkipReason::UnsupportedType(what));
        };
        let end = members.iter().map(|member| member.offset.saturating_add(member.layout.size));
        // Whether further bits would share the byte of the last ones is not documented either.
        let ends_with_bits = members.last().is_some_and(|member| member.bit.is_some());
        if ends_with_bits || end.max() != Some(base.size) {
            let why = "the structure that it extends ends in unused bytes or bits";
            return Err(SkipReason::UnknownLayout { name: name.to_owned(), why });
        }
        self.members.extend(members.iter().map(|member| LayoutMember {
            name: member.name.clone(),
            comment: member.comment.clone(),
            layout: Rc::clone(&member.layout),
            ..*member
        }));
        self.end = base.size;
        self.alignment = base.alignment;
        Ok(())
    }

    fn place(&mut self, member: &MemberDeclaration, layout: Rc<Layout>) {
        let (offset, bit) = if matches!(layout.content, MemberContent::Bit) {
            let (byte, bit) = self.next_bit.unwrap_or((self.end, 0));
            self.next_bit = (bit < 7).then_some((byte, bit + 1));
            self.end = byte.saturating_add(1);
            (byte, Some(bit))
        } else {
            self.next_bit = None;
            let alignment = layout.alignment.min(self.max_alignment);
            self.alignment = self.alignment.max(alignment);
            let offset = self.end.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
            self.end = offset.saturating_add(layout.size);
            (offset, None)
        };
        let (name, comment) = (member.name.clone(), member.comment.clone());
        self.members.push(LayoutMember { name, offset, bit, comment, layout });
    }

    fn finish(self, name: &str) -> Computed {
        finished(self.members, self.end, self.alignment, name)
    }
}

/// Returns the layout of a structure or union, whose size is a multiple of its alignment.
fn finished(members: Vec<LayoutMember>, end: u64, alignment: u64, name: &str) -> Computed {
    if members.is_empty() {
        return Err(SkipReason::UnsupportedType(format!("{name} has no members")));
    }
    let size = end.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    Ok(Rc::new(Layout { size, alignment, content: MemberContent::Members(members) }))
}

fn value(iec: IecType, names: Option<Rc<BTreeMap<i64, String>>>) -> Rc<Layout> {
    let (size, alignment) = (u64::from(iec.size()), u64::from(iec.alignment()));
    Rc::new(Layout { size, alignment, content: MemberContent::Value(iec, names) })
}
